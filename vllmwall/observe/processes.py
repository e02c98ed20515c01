"""`Process` values from ``/proc``, including what processes overwrite later.

setproctitle overwrites ``/proc/PID/cmdline`` *and* ``/proc/PID/environ`` (seen in vLLM, SGLang and
Ray), so both are kept as first read. A process that ends while it is read is not an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from vllmwall.model import Process, Stack
from vllmwall.observe.containers import image_of
from vllmwall.observe.files import settings_of
from vllmwall.observe.owners import STARVED
from vllmwall.recognize.inputs import ENV_KEYS, LIBRARY_MARKS

_KERNEL_THREAD = 0x00200000  # PF_KTHREAD, linux/sched.h
_READ_LIMIT = 1 << 20
_CHUNK = 4096  # what is asked for is allocated: a megabyte a read made a scan five times slower


class _Stat(NamedTuple):
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


class ProcessTable:
    """All processes of the node, re-read at every `scan`, with what they were at exec.

    Of processes that are not ``watched`` the command line is read again only when their name
    changes: nearly all of a node is none of our business, and half of a scan is that read.
    """

    def __init__(self) -> None:
        self.processes: dict[int, Process] = {}
        self._programs: dict[int, tuple[int, int]] = {}
        self._kernel_threads: set[int] = set()
        self.watched: frozenset[int] = frozenset()

    def scan(self) -> Mapping[int, Process]:
        """Re-read every process, forget those that ended, and return the table."""
        pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208
        self._kernel_threads &= pids
        for pid in pids - self._kernel_threads:
            self.look_at(pid)
        for pid in self.processes.keys() - pids:
            self._forget(pid)
        return self.processes

    def look_at(self, pid: int) -> Process | None:
        """Re-read one process; None when it is gone, a zombie or a kernel thread."""
        stat = read_stat(pid)
        if stat is None or stat.state in "ZX":
            self._forget(pid)
            return None
        if stat.flags & _KERNEL_THREAD:
            self._kernel_threads.add(pid)
            return None
        known = self.processes.get(pid)
        if known is None or self._programs[pid] != stat.program:
            return self._remember(pid, stat)
        return self._refresh(known, stat)

    def look_at_family(self, pid: int) -> Process | None:
        """Re-read a process and those of its ancestors that are not known yet."""
        process = self.look_at(pid)
        parent = process.ppid if process else 0
        while parent > 1 and parent not in self.processes:
            ancestor = self.look_at(parent)
            parent = ancestor.ppid if ancestor else 0
        return process

    def look_inside(self, pids: Iterable[int]) -> None:
        """Read thread names and mapped libraries of these processes (dear: owners only)."""
        for pid in pids:
            if process := self.processes.get(pid):
                self.processes[pid] = replace(
                    process,
                    threads=read_threads(pid),
                    libraries=read_libraries(pid),
                    cgroup=read_cgroup(pid),
                    namespace=_inode(f"/proc/{pid}/ns/net"),
                )

    def count_threads(self, pids: Iterable[int]) -> None:
        """Read thread names again: a library starts its threads after it listens."""
        for pid in pids:
            if process := self.processes.get(pid):
                threads = read_threads(pid)
                if threads != process.threads:
                    self.processes[pid] = replace(process, threads=threads)

    def note_moves(self, pids: Iterable[int]) -> None:
        """Read again in which cgroup these are: a running job can be moved to another."""
        for pid in pids:
            if process := self.processes.get(pid):
                cgroup = read_cgroup(pid)
                if cgroup != process.cgroup:
                    self.processes[pid] = replace(process, cgroup=cgroup)

    def remember(self, stacks: Mapping[int, Stack]) -> None:
        """Note which workload's stack each of these pids was found in."""
        for pid, stack in stacks.items():
            process = self.processes.get(pid)
            if process is not None and process.remembered is not stack:
                self.processes[pid] = replace(process, remembered=stack)

    def _remember(self, pid: int, stat: _Stat) -> Process | None:
        argv = read_argv(pid)
        cgroup = read_cgroup(pid)
        process = Process(
            pid=pid,
            ppid=stat.ppid,
            comm=stat.comm,
            argv=argv,
            start_time=stat.start_time,
            exe=_link(f"/proc/{pid}/exe").removesuffix(" (deleted)"),
            uid=_owner(pid),
            namespace=_inode(f"/proc/{pid}/ns/net"),
            cgroup=cgroup,
            image=image_of(cgroup),
            env=read_environ(pid),
            exec_argv=argv,
            birth_ppid=self._birth_ppid(pid, stat),
            settings=settings_of(pid, argv),
        )
        self.processes[pid] = process
        self._programs[pid] = stat.program
        return process

    def _birth_ppid(self, pid: int, stat: _Stat) -> int:
        known = self.processes.get(pid)
        if known is not None and known.start_time == stat.start_time and known.birth_ppid:
            return known.birth_ppid
        return stat.ppid

    def _refresh(self, known: Process, stat: _Stat) -> Process:
        is_same = (stat.comm, stat.ppid) == (known.comm, known.ppid)
        if is_same and known.pid not in self.watched:
            return known
        argv = read_argv(known.pid)
        if (argv, stat.comm, stat.ppid) == (known.argv, known.comm, known.ppid):
            return known
        process = replace(known, argv=argv, comm=stat.comm, ppid=stat.ppid)
        self.processes[known.pid] = process
        return process

    def _forget(self, pid: int) -> None:
        self.processes.pop(pid, None)
        self._programs.pop(pid, None)


def read_stat(pid: int) -> _Stat | None:
    """Parse ``/proc/PID/stat``; None when the process is gone."""
    text = read(f"/proc/{pid}/stat")
    end = text.rfind(b")")
    if end < 0:
        return None
    fields = text[end + 2 :].split(b" ", 26)
    return _Stat(
        comm=text[text.index(b"(") + 1 : end].decode(errors="replace"),
        state=fields[0].decode(),
        ppid=int(fields[1]),
        flags=int(fields[6]),
        start_time=int(fields[19]),
        stack=int(fields[25]),
    )


def read_argv(pid: int) -> tuple[str, ...]:
    """The current command line, without the empty strings at its end that titles leave."""
    parts = read(f"/proc/{pid}/cmdline").decode(errors="replace").rstrip("\0").split("\0")
    return tuple(parts) if parts != [""] else ()


def read_environ(pid: int) -> Mapping[str, str]:
    """Those variables that recognition reads; no other leaves this function."""
    found = {}
    for part in read(f"/proc/{pid}/environ").split(b"\0"):
        name, _, value = part.partition(b"=")
        if (key := name.decode(errors="replace")) in ENV_KEYS:
            found[key] = value.decode(errors="replace")
    return found


def read_threads(pid: int) -> Mapping[str, int]:
    """How many threads there are of each name."""
    folder = f"/proc/{pid}/task"
    names: dict[str, int] = {}
    for task in _entries(folder):
        name = read(f"{folder}/{task}/comm").decode(errors="replace").strip()
        names[name] = names.get(name, 0) + 1
    return names


def read_libraries(pid: int) -> frozenset[str] | None:
    """Names of the mapped libraries that identify a transport; None: not readable."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_bytes().decode(errors="replace")
    except OSError:
        return None
    if not maps:  # it is ending, or has not started its program yet
        return None
    return frozenset(name for mark, name in LIBRARY_MARKS.items() if mark in maps)


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


def read(path: str, limit: int = _READ_LIMIT) -> bytes:
    """The file's bytes, empty when the process is gone or the kernel hides it from us.

    Raises OSError when descriptors or memory run out: the pass then fails as a whole and the active
    rules are unchanged.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return _nothing(error)
    parts = []
    try:
        while limit > 0 and (part := os.read(descriptor, _CHUNK)):
            parts.append(part)
            # /proc fills the buffer while there is more: a short answer was the last one.
            limit = limit - len(part) if len(part) == _CHUNK else 0
    except OSError as error:
        return _nothing(error)
    finally:
        os.close(descriptor)
    return b"".join(parts)


def _nothing(error: OSError) -> bytes:
    if error.errno in STARVED:
        raise error
    return b""


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []


def _link(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return ""


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino  # noqa: PTH116
    except OSError:
        return 0


def _owner(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116
    except OSError:
        return 0
