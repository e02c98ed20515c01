"""`Process` values from ``/proc``, including what processes overwrite later.

setproctitle overwrites ``/proc/PID/cmdline`` *and* ``/proc/PID/environ`` (seen in vLLM, SGLang and
Ray), so both are kept as first read. A process that ends while it is read is not an error. One that
cannot be read, whatever the reason, costs itself only: it is in the table, `Process.unread`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

from vllmwall.linux.netns import OWN
from vllmwall.model import Process, Stack
from vllmwall.observe.births import Birth, Recalled, is_lost_with_us
from vllmwall.observe.containers import image_of
from vllmwall.observe.files import Wanted, settings_path
from vllmwall.observe.patience import Patience
from vllmwall.observe.proc import (
    STARVED,
    Stat,
    holds_gpu,
    ids_of,
    inode,
    link,
    read_argv,
    read_cgroup,
    read_environ,
    read_libraries,
    read_stat,
    read_threads,
)
from vllmwall.observe.shares import Account, Shares, account_of, place_of
from vllmwall.observe.user_files import UserFiles
from vllmwall.recognize.inputs import GPU

_KERNEL_THREAD = 0x00200000  # PF_KTHREAD, linux/sched.h
_AT_ONCE = 64  # processes between two calls of ``catch_up``
_WORD = 64  # bytes that a word of a command line takes in memory, without its letters
_FREE = 1024  # bytes of a command line that count for nobody's share
_THREAD = 2048  # a thread costs as much time as so many bytes of a memory map
_TRIED_AGAIN = 256  # processes in a scan that were left out before
_MIB = 1 << 20
_LOOKED = 16 * _MIB
_LOOKED_AT_FIRST = 128 * _MIB  # a second: an API must not close because the daemon starts
_BLOCKED = "the kernel does not let it be read now: a thread of it waits, as for a hung mount"
_TOO_MANY = "its user has too many processes"
_TOO_LONG = "the command lines of its user are too long"
_TOO_LARGE = "the processes of its user have too many threads and mapped files"


class _Exec(NamedTuple):
    """What a process was given at exec."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


class _Inside(NamedTuple):
    """What runs in a process: dear to read."""

    threads: Mapping[str, int]
    libraries: frozenset[str] | None
    size: int


@dataclass
class _Known:
    """Of a process in the table: its program, its effective uid, and its part of the shares."""

    program: tuple[int, int]
    euid: int
    account: Account
    bytes: int = 0


class ProcessTable:
    """All processes of the node, re-read at every `scan`, with what they were at exec.

    Of processes that are not ``watched`` the command line is read again only when their name
    changes: nearly all of a node is none of our business, and half of a scan is that read.
    """

    def __init__(self) -> None:
        self.processes: dict[int, Process] = {}
        self.watched: frozenset[int] = frozenset()
        self.files = UserFiles()
        self.recalled = Recalled(())
        self._known: dict[int, _Known] = {}
        self._kernel_threads: set[int] = set()
        self._left_out: set[int] = set()
        self._own_namespace = inode(OWN)
        self._patience = Patience()
        self._counted = Shares(each=4096, together=16384)
        self._kept = Shares(each=4 * _MIB, together=16 * _MIB)  # bytes of command lines
        self._looked = Shares(_LOOKED_AT_FIRST, 2 * _LOOKED_AT_FIRST)  # bytes of maps, in a pass

    def scan(self, catch_up: Callable[[], None] = lambda: None) -> Mapping[int, Process]:
        """Re-read every process, forget those that ended, and return the table.

        ``catch_up`` is called between them, and may look at some of them itself.
        """
        pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208
        self._kernel_threads &= pids
        for pid in self.processes.keys() - pids:
            self._forget(pid)
        self._counted.over.clear()
        self._kept.over.clear()
        self._left_out &= pids
        left_out = set(islice(self._left_out, _TRIED_AGAIN, None))
        self._left_out = left_out.copy()
        waiting = iter(sorted(pids - self._kernel_threads - left_out))
        while some := list(islice(waiting, _AT_ONCE)):
            self._look_at(some)
            catch_up()
        self.note_files()
        return self.processes

    def look_at(self, pid: int) -> Process | None:
        """Re-read one process; None when it is gone, a zombie or a kernel thread."""
        self._look_at([pid])
        return self.processes.get(pid)

    def look_at_family(self, pid: int) -> Process | None:
        """Re-read a process and those of its ancestors that are not known yet."""
        process = self.look_at(pid)
        parent = process.ppid if process else 0
        while parent > 1 and parent not in self.processes:
            ancestor = self.look_at(parent)
            parent = ancestor.ppid if ancestor else 0
        return process

    def look_inside(
        self, pids: Iterable[int], catch_up: Callable[[], None] = lambda: None
    ) -> frozenset[int]:
        """Read thread names and mapped libraries of these processes (dear: owners only).

        Those are returned that have to wait for the next time, because of their user's share.
        """
        waiting = set()
        for pid in filter(self._is_readable, pids):
            process, account = self.processes[pid], self._known[pid].account
            if not self._looked.take(account, 0):
                waiting.add(pid)
                self.processes[pid] = replace(process, unread=process.unread or _TOO_LARGE)
                continue
            found, _ = self._patience.read([pid], _read_inside)
            if pid in found:
                self._note_inside(process, found[pid])
            catch_up()
        self._looked = Shares(_LOOKED, 4 * _LOOKED)
        return frozenset(waiting)

    def _note_inside(self, process: Process, inside: _Inside) -> None:
        pid = process.pid
        self._looked.use(
            self._known[pid].account, inside.size + _THREAD * sum(inside.threads.values())
        )
        self.processes[pid] = replace(
            process,
            threads=inside.threads,
            libraries=inside.libraries,
            cgroup=read_cgroup(pid),
            namespace=inode(f"/proc/{pid}/ns/net"),
            unread="" if process.unread == _TOO_LARGE else process.unread,
        )

    def count_threads(
        self, pids: Iterable[int], catch_up: Callable[[], None] = lambda: None
    ) -> None:
        """Read thread names again: a library starts its threads after it listens."""
        for pid in filter(self._is_readable, pids):
            catch_up()
            process, account = self.processes[pid], self._known[pid].account
            if self._looked.take(account, 0):
                threads = read_threads(pid)
                self._looked.use(account, _THREAD * sum(threads.values()))
                if threads != process.threads:
                    self.processes[pid] = replace(process, threads=threads)

    def note_moves(self, pids: Iterable[int], catch_up: Callable[[], None] = lambda: None) -> None:
        """Read again in which cgroup these are: a running job can be moved to another."""
        for pid in pids:
            catch_up()
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

    def births(self, pids: Container[int]) -> Iterator[tuple[Account, Birth]]:
        """What was seen of the births of ``pids``, and of processes that do not show it any more,
        each with whose share it is."""
        for pid, known in self._known.items():
            one = self.processes.get(pid)
            if one is not None and is_lost_with_us(one, pids):
                yield known.account, Birth.of(one, known.program)

    def note_files(self) -> None:
        """Ask for the files that processes name, and note what was read of them meanwhile."""
        for process in list(self.processes.values()):
            self._note_file(process)

    def _note_file(self, process: Process) -> None:
        if path := _named_by(process):
            wanted = Wanted(process.pid, process.start_time, "settings", path)
            found, unread = self.files.content(wanted, process.uid)
            if (found, unread) != (process.settings, process.settings_unread):
                settings = {key: str(value) for key, value in found.items()}
                self.processes[process.pid] = replace(
                    process, settings=settings, settings_unread=unread
                )

    @property
    def accounts(self) -> Mapping[int, Account]:
        """Whose share each process uses up."""
        return {pid: known.account for pid, known in self._known.items()}

    @property
    def left_out(self) -> Mapping[tuple[int, int], str]:
        """The users who have more than their share, and of what."""
        reasons = ((self._counted, _TOO_MANY), (self._kept, _TOO_LONG))
        return {place_of(one): why for shares, why in reasons for one in shares.over}

    def _look_at(self, pids: Iterable[int]) -> None:
        """Read these again: new programs whole, of the others what can have changed."""
        new: dict[int, Stat] = {}
        again: dict[int, Stat] = {}
        for pid in pids:
            try:
                stat = read_stat(pid)
                if stat is None or stat.state in "ZX":
                    self._forget(pid)
                elif stat.flags & _KERNEL_THREAD:
                    self._kernel_threads.add(pid)
                elif self._is_another(pid, stat):
                    new[pid] = stat
                elif self._can_have_changed(pid, stat):
                    again[pid] = stat
            except (FileNotFoundError, ProcessLookupError):
                self._forget(pid)
            except Exception as error:
                self._note_failure(pid, None, error)
        self._add(new)
        self._retitle(again)

    def _is_another(self, pid: int, stat: Stat) -> bool:
        """Another program, another process of the same pid, or one that changed its user."""
        known = self._known.get(pid)
        if known is None or known.program != stat.program:
            return True
        euid = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116
        if euid == known.euid:
            return self.processes[pid].unread == _BLOCKED and pid not in self._patience.blocked
        ids, process = ids_of(pid), self.processes[pid]
        if ids is None or process.mixed_ids or not ids.are_equal:
            return True
        known.euid, self.processes[pid] = euid, replace(process, uid=ids.user)
        return False

    def _can_have_changed(self, pid: int, stat: Stat) -> bool:
        process = self.processes[pid]
        return (stat.comm, stat.ppid) != (process.comm, process.ppid) or pid in self.watched

    def _add(self, stats: Mapping[int, Stat]) -> None:
        """Put new programs into the table."""
        begun: dict[int, Process] = {}
        for pid, stat in stats.items():
            try:
                if process := self._begun(pid, stat):
                    begun[pid] = process
            except Exception as error:
                self._note_failure(pid, None, error)
        self.processes.update(begun)
        speaking = [pid for pid, one in begun.items() if not one.mixed_ids]
        found, failed = self._patience.read(speaking, _read_exec)
        for pid in speaking:
            if pid in found:
                self._keep(begun[pid], found[pid])
            elif pid in failed:
                self._note_failure(pid, begun[pid], failed[pid])
            else:
                self.processes[pid] = replace(begun[pid], unread=_BLOCKED)

    def _begun(self, pid: int, stat: Stat) -> Process | None:
        """A program that runs now, without its command line and environment."""
        ids, namespace, before = ids_of(pid), inode(f"/proc/{pid}/ns/net"), self.processes.get(pid)
        self._forget(pid)
        if ids is None:
            return None
        account = account_of(ids.user, namespace, self._own_namespace)
        if not self._counted.take(account, 1):
            self._left_out.add(pid)
            return None
        self._known[pid] = _Known(stat.program, ids.uids[1], account)
        cgroup = read_cgroup(pid)
        return Process(
            pid=pid,
            ppid=stat.ppid,
            comm=stat.comm,
            start_time=stat.start_time,
            exe=link(f"/proc/{pid}/exe").removesuffix(" (deleted)"),
            uid=ids.user,
            namespace=namespace,
            cgroup=cgroup,
            image=image_of(cgroup),
            birth_ppid=self.recalled.first_parent(pid, stat, before),
            mixed_ids=not ids.are_equal,
        )

    def _keep(self, process: Process, given: _Exec) -> None:
        argv = self._shared(process, given.argv)
        if argv is None:
            self.processes[process.pid] = replace(process, unread=_TOO_LONG)
            return
        known = replace(process, argv=argv, exec_argv=argv, env=given.env)
        program, parent = self._known[process.pid].program, self.processes.get(process.ppid)
        self.processes[process.pid] = known = self.recalled.restored(known, program, parent)
        self._note_file(known)

    def _shared(self, process: Process, argv: tuple[str, ...]) -> tuple[str, ...] | None:
        """The command line, in memory once for a program and its forks; None: it is too long."""
        parent = self.processes.get(process.ppid)
        if parent is not None and parent.exec_argv == argv:
            return parent.exec_argv
        size, known = sum(map(len, argv)) + _WORD * len(argv), self._known[process.pid]
        if size > _FREE:
            if not self._kept.take(known.account, size):
                return None
            known.bytes += size
        return argv

    def _retitle(self, stats: Mapping[int, Stat]) -> None:
        """Read the command lines again of programs that can have another title now."""
        speaking = [pid for pid in stats if not self.processes[pid].mixed_ids]
        found, _ = self._patience.read(speaking, read_argv)
        for pid, stat in stats.items():
            process = self.processes[pid]
            argv = found.get(pid, process.argv)
            if argv == process.exec_argv:
                argv = process.exec_argv
            elif argv != process.argv:
                argv = _shortened(argv)
            if (argv, stat.comm, stat.ppid) != (process.argv, process.comm, process.ppid):
                self.processes[pid] = replace(process, argv=argv, comm=stat.comm, ppid=stat.ppid)

    def _note_failure(self, pid: int, process: Process | None, error: Exception) -> None:
        """A process that is odd in a way that we did not think of costs itself only."""
        is_starved = isinstance(error, OSError) and error.errno in STARVED
        if is_starved or isinstance(error, MemoryError):
            raise error
        process = process or self.processes.get(pid) or Process(pid, 0, "")
        self.processes[pid] = replace(process, unread=f"it cannot be read: {type(error).__name__}")

    def _is_readable(self, pid: int) -> bool:
        process = self.processes.get(pid)
        return process is not None and not process.mixed_ids and pid in self._known

    def _forget(self, pid: int) -> None:
        self.processes.pop(pid, None)
        known = self._known.pop(pid, None)
        if known is not None:
            self._counted.give_back(known.account, 1)
            self._kept.give_back(known.account, known.bytes)


def _read_exec(pid: int) -> _Exec:
    return _Exec(read_argv(pid), read_environ(pid))


def _read_inside(pid: int) -> _Inside:
    libraries, size = read_libraries(pid)
    if libraries is not None and GPU not in libraries and holds_gpu(pid):
        libraries |= {GPU}
    return _Inside(read_threads(pid), libraries, size)


def _named_by(process: Process) -> str | None:
    return None if process.mixed_ids else settings_path(process.started_as)


def _shortened(title: tuple[str, ...]) -> tuple[str, ...]:
    """A title of a few words as it is; of more, what begins it."""
    kept: list[str] = []
    left = _FREE
    for word in title:
        left -= _WORD + len(word)
        if left < 0:
            return tuple(kept) or (word[:_FREE],)
        kept.append(word)
    return title
