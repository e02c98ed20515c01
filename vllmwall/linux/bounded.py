"""A process that takes another one's rights and can do no harm: for data that users control.

`become` is for a child of ours that ends after one task. It has the ids, the root and the working
directory of the other process, no capability, and limits of time and memory.
"""

from __future__ import annotations

import ctypes
import os
import resource
from dataclasses import dataclass
from pathlib import Path

_NO_NEW_PRIVS, _DUMPABLE = 38, 4  # PR_SET_..., linux/prctl.h
_CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3, linux/capability.h
_PATH = os.O_PATH | os.O_CLOEXEC
_STATUS_LIMIT = 1 << 20  # a user may have 65,536 groups
_PAGE = os.sysconf("SC_PAGE_SIZE")


class NotAllowedError(Exception):
    """Nothing may be done in the name of this process. The text is the reason."""


@dataclass(frozen=True)
class Ids:
    """The ids of a process: real, effective, saved and filesystem uid; real gid; groups."""

    uids: tuple[int, ...]
    gid: int
    groups: tuple[int, ...]

    @property
    def user(self) -> int:
        """The real uid: the user who started it, whatever file it executes."""
        return self.uids[0]

    @property
    def are_equal(self) -> bool:
        """False: a setuid program, or one between two users. It speaks for neither."""
        return len(set(self.uids)) == 1


def read_ids(status: bytes) -> Ids:
    """The ids in the text of ``/proc/PID/status``. Raises ValueError where they are not there."""
    found = {}
    for line in status.split(b"\n"):
        name, _, rest = line.partition(b":")
        if name in (b"Uid", b"Gid", b"Groups"):
            found[name] = tuple(map(int, rest.split()))
    if len(found.get(b"Uid", ())) != 4 or not found.get(b"Gid"):
        raise ValueError("no ids")
    return Ids(found[b"Uid"], found[b"Gid"][0], found.get(b"Groups", ()))


def limit(cpu_seconds: int, memory: int) -> None:
    """Limit this process: processor time, bytes more than it has now, no files, no core."""
    has = int(Path("/proc/self/statm").read_bytes().split()[0]) * _PAGE
    for what, most in (
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, has + memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def become(pid: int, start_time: int) -> None:
    """Take the rights, the root and the working directory of a process, for good.

    ``start_time`` is field 22 of its stat: a pid can be reused. Raises NotAllowedError, and OSError
    where this process may not; after either it must end.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    place = os.open(f"/proc/{pid}", _PATH | os.O_DIRECTORY)
    ids = read_ids(_read(place, "status"))
    if not ids.are_equal:
        raise NotAllowedError("its four user ids are not equal")
    root, directory = (
        os.open(one, _PATH | os.O_DIRECTORY, dir_fd=place) for one in ("root", "cwd")
    )
    if int(_read(place, "stat").rpartition(b")")[2].split()[19]) != start_time:
        raise NotAllowedError("it has ended")
    os.fchdir(root)
    os.chroot(".")  # so that absolute links lead where they lead the process
    os.fchdir(directory)
    for one in (place, root, directory):
        os.close(one)
    os.setgroups(ids.groups)
    os.setresgid(ids.gid, ids.gid, ids.gid)
    os.setresuid(ids.user, ids.user, ids.user)
    _drop_capabilities(libc)
    for option, value in ((_NO_NEW_PRIVS, 1), (_DUMPABLE, 0)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """All of them: a process of root keeps them over setresuid(2)."""
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _read(place: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=place)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_STATUS_LIMIT)
