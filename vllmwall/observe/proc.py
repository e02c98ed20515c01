"""Files of ``/proc``: each read is bounded, and a process that ends meanwhile is no error.

Want of descriptors or memory is an error: seeing nothing must never look like there being nothing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from vllmwall.linux.bounded import Ids, read_ids
from vllmwall.recognize.inputs import ENV_KEYS, GPU_DEVICES, LIBRARY_MARKS

STARVED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
MOST_ARGUMENTS = 64 * 1024
"""Bytes of a command line. Those of real servers have some thousand."""
MOST_WORDS = 2048

_ENVIRONMENT_LIMIT = 1 << 20  # Kubernetes puts some hundred bytes there for each Service
_VALUE_LIMIT = 1024
_MAPS_LIMIT = 4 << 20  # 20,000 mappings
_MOST_THREADS = 2048
_MOST_DESCRIPTORS = 1024
_CHUNK = 4096  # what is asked for is allocated: a megabyte a read made a scan five times slower
_LONGEST_MARK = max(map(len, LIBRARY_MARKS))
_MARKS = tuple((mark.encode(), name) for mark, name in LIBRARY_MARKS.items())
_VARIABLES = tuple((f"{name}=".encode(), name) for name in sorted(ENV_KEYS))


class Stat(NamedTuple):
    """The fields of ``/proc/PID/stat`` that we use; proc(5) numbers them from 1."""

    comm: str
    state: str
    ppid: int
    flags: int
    start_time: int
    stack: int

    @property
    def program(self) -> tuple[int, int]:
        """A key that changes only when the pid is reused or the process execs."""
        return self.start_time, self.stack


def read_stat(pid: int) -> Stat | None:
    """Parse ``/proc/PID/stat``; None when the process is gone."""
    text = read(f"/proc/{pid}/stat")
    end = text.rfind(b")")
    if end < 0:
        return None
    fields = text[end + 2 :].split(b" ", 26)
    return Stat(
        comm=text[text.index(b"(") + 1 : end].decode(errors="replace"),
        state=fields[0].decode(),
        ppid=int(fields[1]),
        flags=int(fields[6]),
        start_time=int(fields[19]),
        stack=int(fields[25]),
    )


def ids_of(pid: int) -> Ids | None:
    """The ids of a process; None when it is gone."""
    with suppress(ValueError):
        return read_ids(read(f"/proc/{pid}/status"))
    return None


def read_argv(pid: int) -> tuple[str, ...]:
    """The current command line, without the empty strings at its end that titles leave.

    One of more than `MOST_ARGUMENTS` bytes or `MOST_WORDS` words is cut.
    """
    text = read(f"/proc/{pid}/cmdline", MOST_ARGUMENTS).decode(errors="replace").rstrip("\0")
    return tuple(text.split("\0", MOST_WORDS)[:MOST_WORDS]) if text else ()


def read_environ(pid: int) -> Mapping[str, str]:
    """Those variables that recognition reads; no other leaves this function."""
    text = b"\0" + read(f"/proc/{pid}/environ", _ENVIRONMENT_LIMIT)
    found = {}
    for beginning, name in _VARIABLES:
        at = text.rfind(b"\0" + beginning)
        if at >= 0:
            start = at + 1 + len(beginning)
            end = text.find(b"\0", start, start + _VALUE_LIMIT)
            value = text[start : end if end >= 0 else start + _VALUE_LIMIT]
            found[name] = value.decode(errors="replace")
    return found


def read_threads(pid: int) -> Mapping[str, int]:
    """How many threads there are of each name, of the first `_MOST_THREADS`."""
    folder = f"/proc/{pid}/task"
    names: dict[str, int] = {}
    for task in entries(folder, _MOST_THREADS):
        name = read(f"{folder}/{task}/comm").decode(errors="replace").strip()
        names[name] = names.get(name, 0) + 1
    return names


def read_libraries(pid: int) -> tuple[frozenset[str] | None, int]:
    """Names of the mapped libraries that identify a transport, and how many bytes were read.

    None: not readable. Of a larger memory map only the first `_MAPS_LIMIT` bytes are looked at.
    """
    found, size, before = set(), 0, b""
    left = list(_MARKS)
    for part in parts_of(f"/proc/{pid}/maps", _MAPS_LIMIT, short_is_last=False):
        size += len(part)
        text, before = before + part, part[-_LONGEST_MARK:]
        seen = [one for one in left if one[0] in text]
        found |= {name for _, name in seen}
        left = [one for one in left if one not in seen]
    if not size:  # it is ending, or has not started its program yet
        return None, 0
    return frozenset(found), size


def holds_gpu(pid: int) -> bool:
    """One of its first `_MOST_DESCRIPTORS` descriptors is an accelerator's device.

    What only reads a GPU's counters maps nothing of it.
    """
    folder = f"/proc/{pid}/fd"
    names = entries(folder, _MOST_DESCRIPTORS)
    return any(link(f"{folder}/{name}").startswith(GPU_DEVICES) for name in names)


def read_cgroup(pid: int) -> str:
    """The path in the cgroup v2 hierarchy; where only v1 holds the process, the longest path."""
    best = "/"
    for line in read(f"/proc/{pid}/cgroup").decode(errors="replace").splitlines():
        hierarchy, _, rest = line.partition(":")
        path = rest.partition(":")[2]
        if hierarchy == "0" and path != "/":
            return path
        best = max(best, path, key=len)
    return best


def read(path: str, limit: int = 1 << 20) -> bytes:
    """The file's first ``limit`` bytes, empty when the process is gone or the kernel hides it.

    Raises OSError when descriptors or memory run out: the pass then fails as a whole and the active
    rules are unchanged.
    """
    return b"".join(parts_of(path, limit))


def parts_of(path: str, limit: int, *, short_is_last: bool = True) -> Iterator[bytes]:
    """The same, part by part. Most files fill the buffer while there is more; lists do not."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return _unless_starved(error)
    try:
        while limit > 0 and (part := os.read(descriptor, min(_CHUNK, limit))):
            yield part
            limit = 0 if short_is_last and len(part) < _CHUNK else limit - len(part)
    except OSError as error:
        return _unless_starved(error)
    finally:
        os.close(descriptor)


def entries(folder: str, most: int) -> list[str]:
    """The first names in a folder; none when it is gone."""
    try:
        with os.scandir(folder) as found:
            return [one.name for one in islice(found, most)]
    except OSError as error:
        _unless_starved(error)
        return []


def link(path: str) -> str:
    """Where a symbolic link leads; empty when it is gone."""
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return ""


def inode(path: str) -> int:
    """The number of a file; 0 when it is gone."""
    try:
        return os.stat(path).st_ino  # noqa: PTH116
    except OSError:
        return 0


def _unless_starved(error: OSError) -> None:
    if error.errno in STARVED:
        raise error
