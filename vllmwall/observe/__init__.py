"""Observation of this node: processes, listeners, network namespaces. Reads only."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from vllmwall.linux.cgroups import in_first_namespace, mount_point, number_of, our_name_for
from vllmwall.model import Listener, Node, Process, Proto, RaySession, Recognition
from vllmwall.observe.births import Asked, Birth, Recalled
from vllmwall.observe.namespaces import Namespaces
from vllmwall.observe.owners import OwnerIndex
from vllmwall.observe.proc import read
from vllmwall.observe.processes import ProcessTable
from vllmwall.observe.ray import ray_sessions
from vllmwall.observe.relays import Relay, Relays
from vllmwall.observe.shares import Account, account_of, place_of
from vllmwall.observe.visibility import in_first_pid_namespace

_Key = tuple[int, int]
_NAMELESS_KEPT = 1024
_LOOK_AGAIN = 60.0  # seconds
_MOST_DUE = 16
_UNSIGNED = 0xFFFFFFFF  # the kernel compares the backlog so (__sys_listen)
_PATIENCE_SECONDS = 1.0
_TOO_MANY_DESCRIPTORS = "its processes have too many descriptors"


class Observer:
    """Reads the node repeatedly, and keeps only facts that are expensive to read or get lost.

    `observe` reads everything; `observe_listen` and `observe_close` only the subject of one event;
    `node` is the result of all of them. ``is_known``: the whole node was read.
    """

    def __init__(self, only: frozenset[int] = frozenset()) -> None:
        self.only = only
        self.namespaces = Namespaces(only)
        self._table = ProcessTable()
        self._owners = OwnerIndex()
        self._relays = Relays()
        self._relayed: tuple[Relay, ...] = ()
        self._listeners: dict[_Key, Listener] = {}
        self._backlogs: dict[_Key, tuple[int, int]] = {}  # the second is the queue it became
        self._nameless: dict[tuple[int, int], None] = {}
        self._looked_into: dict[int, frozenset[int]] = {}
        self._looked_at: dict[int, float] = {}
        self._workload_pids: frozenset[int] = frozenset()
        self._ray_sessions: tuple[RaySession, ...] = ()
        self._left_out: Mapping[tuple[int, int], str] = {}
        self.files = self._table.files
        self._cgroups: Path | None = None
        self._names_cgroups_as_we_do = in_first_namespace()
        self._names_processes_as_we_do = in_first_pid_namespace()
        self._next_search = 0.0
        self.is_known = False
        self.kept = 0
        """How often `keep` was called: unless it was, there is nothing new in `births`."""

    def recall(self, births: Iterable[Birth], backlogs: Iterable[Asked]) -> None:
        """Know again what an earlier daemon saw of what still runs. Before the first `observe`."""
        self._table.recalled = Recalled(births)
        self._backlogs = {(one.namespace, one.inode): (one.backlog, one.queue) for one in backlogs}

    def births(self) -> Iterator[tuple[Account, Birth | Asked]]:
        """What only births showed of workloads, of who listens, and of what changed since: each
        with whose share it is."""
        owners = {pid for one in self._listeners.values() for pid in one.pids}
        yield from self._table.births(self._workload_pids | owners)
        own = self.namespaces.own
        for key, (backlog, queue) in self._backlogs.items():
            if listener := self._listeners.get(key):
                account = account_of(listener.uid, listener.namespace, own)
                yield account, Asked(*key, backlog, queue)

    def observe(self, catch_up: Callable[[], None] = lambda: None) -> Node:
        """Read the whole node. The first time this waits for files that processes name.

        ``catch_up`` is called every few milliseconds. What it lets this observer learn of listeners
        is forgotten at the end, and has to be told again then.
        """
        self._table.scan(catch_up)
        self.namespaces.update(self._table.processes)
        found = []
        for inode in self.namespaces.inodes:
            found += self.namespaces.listeners(inode)
            catch_up()
        self._replace_listeners(found + self._unix_listeners(), catch_up)
        self._look_inside(self._workload_pids, catch_up)
        self._table.note_moves(self._workload_pids, catch_up)
        self._relayed = self._relays.update(
            self._listeners.values(),
            self._table.processes,
            self._workload_pids,
            self.namespaces.path,
            catch_up,
        )
        self._note_files()
        if not self.is_known:  # the start of a daemon must change no audience
            self.wait_for_files(_PATIENCE_SECONDS)
        self.is_known = True
        return self.node()

    def note_answers(self) -> bool:
        """Note what was read in files that processes name; whether that is anything new."""
        if not self.files.advance():
            return False
        self._table.note_files()
        self._note_files()
        return True

    def wait_for_files(self, seconds: float) -> None:
        """Wait for the files that were asked for, at most so long, and note what they hold."""
        self.files.wait(seconds)
        self._table.note_files()
        self._note_files()

    def close(self) -> None:
        """Give all descriptors back, and end what reads files."""
        self.files.close()
        self.namespaces.close()

    def unanswered(self) -> Iterable[str]:
        """What could not be read because of its user's doing, a line for each; only what is in the
        namespaces that we look into."""
        for (uid, inode), why in self._left_out.items():
            if not self.only or inode in self.only:
                yield f"user {uid}: {why}. Listeners whose process was not looked at are closed"
        for pid, process in self._table.processes.items():
            if self.only and process.namespace not in self.only:
                continue
            if process.unread:
                yield f"process {pid} of user {process.uid}: {process.unread}. It is closed"
            if process.settings_unread:
                why = f"the file after --config: {process.settings_unread}"
                yield f"process {pid} of user {process.uid}: {why}. Its API stays closed"
        yield from self._relays.left_out
        yield from self.namespaces.left_out

    def search(self) -> bool:
        """Read the whole node, in at most a tenth of the time; whether it did.

        For events that name no process. Raises OSError as `observe` does.
        """
        begun = time.monotonic()
        if begun < self._next_search:
            return False
        self.observe()
        self._next_search = begun + 10 * (time.monotonic() - begun)
        return True

    def owners(self, port: int) -> tuple[int, ...]:
        """The pids that listen on ``port``, as last read."""
        found = (one.pids for one in self._listeners.values() if one.port == port)
        return tuple({pid for pids in found for pid in pids})

    def is_held_by_others(self, process: Process, port: int) -> bool:
        """Whether only other processes are known to listen on ``port`` in its namespace."""
        found = [
            one.pids
            for one in self._listeners.values()
            if (one.port, one.namespace) == (port, process.namespace) and one.proto is Proto.TCP
        ]
        return bool(found) and not any(process.pid in pids for pids in found)

    def process(self, pid: int) -> Process | None:
        """A process, as last read."""
        return self._table.processes.get(pid)

    def observe_listen(self, pid: int, port: int, backlog: int | None) -> bool:
        """Read the subject of a listen event: one process, one port.

        False: the process exists and has no such listener.
        """
        process = self._table.look_at_family(pid)
        if process is None:
            return True
        self.namespaces.adopt(process)
        there = self.namespaces.listeners(process.namespace, port)
        held = self._owners.look_into(pid, {one.inode for one in there})
        found = [one for one in there if one.inode in held]
        for listener in found:
            self._add(replace(listener, pids=(pid,)), backlog)
        self._table.count_threads((pid,))
        return bool(found)

    def note_backlog(self, port: int, backlog: int) -> None:
        """Remember the backlog of a listener on ``port`` until a later reading finds the listener.

        For events that name no process.
        """
        if len(self._nameless) >= _NAMELESS_KEPT:
            del self._nameless[next(iter(self._nameless))]
        self._nameless[port, backlog] = None

    def observe_close(self, ports: Collection[int]) -> bool:
        """Forget the listeners on ``ports`` that are no longer there; whether there were any."""
        asked = [(key, one) for key, one in self._listeners.items() if one.port in ports]
        gone = [key for key, one in asked if not self._is_there(one)]
        for key in gone:
            del self._listeners[key]
        return bool(gone)

    def observe_udp(self, pids: Collection[int]) -> tuple[list[Listener], list[Listener]]:
        """Read the UDP sockets of workloads again, also what ``pids`` have bound now: those that
        came, and those that are gone."""
        bound = [one for pid in pids if (one := self._table.processes.get(pid))]
        known = self._udp_of_workloads()
        spaces = {one.namespace for one in bound} | {one.namespace for one in known.values()}
        there = {
            (inode, one.inode): one
            for inode in spaces
            for one in self.namespaces.listeners(inode, only=Proto.UDP)
        }
        gone = [key for key in known.keys() - there.keys() if key[0] not in self.namespaces.errors]
        lost = [self._listeners.pop(key) for key in gone]
        new = there.keys() - self._listeners.keys()
        inodes = {inode for _, inode in new}
        held = {one.pid: self._owners.look_into(one.pid, inodes) for one in bound if inodes}
        came = [(key, pid) for pid, sockets in held.items() for key in new if key[1] in sockets]
        for key, pid in came:
            self._add(replace(there[key], pids=(pid,)), None)
        return [there[key] for key, _ in came], lost

    def _udp_of_workloads(self) -> dict[_Key, Listener]:
        return {
            key: one
            for key, one in self._listeners.items()
            if one.proto is Proto.UDP and not self._workload_pids.isdisjoint(one.pids)
        }

    def _is_there(self, listener: Listener) -> bool:
        there = self.namespaces.listeners(listener.namespace, listener.port)
        failed = listener.namespace in self.namespaces.errors
        return failed or listener.inode in {other.inode for other in there}

    def cgroup_numbers(self, paths: Iterable[str]) -> dict[str, int]:
        """The kernel's numbers of those of the cgroups that exist."""
        mount = self._cgroups = self._cgroups or mount_point()
        if mount is None:
            return {}
        numbers = {path: number_of(path, mount) for path in paths}
        return {path: number for path, number in numbers.items() if number is not None}

    def cgroup_path(self, path: str, number: int) -> str | None:
        """Our path of a cgroup that an event named; None: it is outside our cgroup namespace."""
        if self._names_cgroups_as_we_do:
            return path
        mount = self._cgroups = self._cgroups or mount_point()
        return our_name_for(path, number, mount) if mount else None

    def note_exec(self, pid: int) -> Process | None:
        """Read a program that has just started, before it can rename itself."""
        return self._table.look_at_family(pid)

    def moved(self, pids: Iterable[int]) -> Node:
        """Read the cgroups of these processes again, and return everything known.

        The starter of a job may move it to another cgroup, as systemd does.
        """
        self._table.note_moves(pids)
        return self.node()

    def keep(self, recognition: Recognition) -> None:
        """Read the processes of these workloads in more detail from now on."""
        self.kept += 1
        stacks = {pid: one.stack for one in recognition.workloads for pid in one.pids}
        self._table.remember(stacks)
        self._workload_pids = frozenset(stacks)
        processes = (self._table.processes.get(pid) for pid in stacks)
        self.namespaces.keep({one.namespace for one in processes if one is not None})

    def _unix_listeners(self) -> list[Listener]:
        spaces = {
            self._table.processes[pid].namespace
            for pid in self._workload_pids
            if pid in self._table.processes
        }
        return [one for inode in spaces for one in self.namespaces.unix_listeners(inode)]

    def _replace_listeners(self, found: list[Listener], catch_up: Callable[[], None]) -> None:
        identities = {pid: one.start_time for pid, one in self._table.processes.items()}
        inodes, accounts = {one.inode for one in found}, self._table.accounts
        owners = self._owners.update(inodes, identities, self._workload_pids, accounts, catch_up)
        over = {place_of(one): _TOO_MANY_DESCRIPTORS for one in self._owners.over}
        self._left_out = {**over, **self._table.left_out}
        before, listeners = self._listeners, dict[_Key, Listener]()
        for one in found:
            catch_up()
            key, backlog = (one.namespace, one.inode), self._backlog_of(one)
            made, known = replace(one, pids=owners[one.inode], backlog=backlog), before.get(key)
            listeners[key] = known if made == known else made  # equal values are cheap to compare
        self._listeners = listeners
        self._backlogs = {
            key: (one.backlog, one.queue_limit)
            for key, one in self._listeners.items()
            if one.backlog is not None and one.queue_limit is not None
        }

    def _backlog_of(self, listener: Listener) -> int | None:
        """From its event, or from an event without a name whose port and queue length fit."""
        queue = listener.queue_limit
        backlog, made = self._backlogs.get((listener.namespace, listener.inode), (None, None))
        if backlog is not None:
            return backlog if made == queue else None  # it called listen() again
        nameless = queue is not None and (listener.port, queue) in self._nameless
        return queue if nameless else None

    def _add(self, listener: Listener, backlog: int | None) -> None:
        key, queue = (listener.namespace, listener.inode), listener.queue_limit
        if backlog is not None and queue is not None and self._made(listener, backlog):
            self._backlogs[key] = backlog, queue
        known = self._listeners.get(key)
        pids = known.pids if known and set(listener.pids) <= set(known.pids) else listener.pids
        self._listeners[key] = replace(listener, pids=pids, backlog=self._backlog_of(listener))

    def _made(self, listener: Listener, backlog: int) -> bool:
        """Whether ``listen(backlog)`` made the queue that the kernel shows: else an event lies, or
        is about another socket."""
        if backlog == listener.queue_limit:
            return True
        # Of an event without a name only the port fits: another box's socket may be meant.
        if not self._names_processes_as_we_do:
            return False
        most = self.namespaces.longest_queue(listener.namespace)
        return listener.queue_limit == min(backlog & _UNSIGNED, most)

    def _note_files(self) -> None:
        processes = self._table.processes
        self.files.forget_ended({pid: one.start_time for pid, one in processes.items()})
        self._ray_sessions = ray_sessions(processes.values(), self.files)

    def _look_inside(self, always: Collection[int], catch_up: Callable[[], None]) -> None:
        """Threads and libraries of owners, again when their listeners changed."""
        held: dict[int, set[int]] = {}
        for listener in self._listeners.values():
            for pid in listener.pids:
                held.setdefault(pid, set()).add(listener.inode)
        now = {pid: frozenset(inodes) for pid, inodes in held.items()}
        changed = [pid for pid in now if self._looked_into.get(pid) != now[pid]]
        catch_up()
        due = self._due(now.keys() - {*always, *changed})
        waiting = self._table.look_inside((*changed, *due), catch_up)
        self._looked_at |= dict.fromkeys((*changed, *due), time.monotonic())
        counted = [pid for pid in now if pid in always and pid not in changed]
        self._table.count_threads(counted, catch_up)
        self._looked_into = {pid: held for pid, held in now.items() if pid not in waiting}
        self._table.watched = self._workload_pids | now.keys()

    def _due(self, pids: Collection[int]) -> list[int]:
        """Those that other hosts reach and that were looked into a while ago: a server that
        listens at once loads its model, and a GPU, later. A few at a time."""
        reached = {
            pid for one in self._listeners.values() if not one.is_loopback for pid in one.pids
        }
        self._looked_at = {pid: at for pid, at in self._looked_at.items() if pid in pids}
        before = time.monotonic() - _LOOK_AGAIN
        due = (pid for pid in reached.intersection(pids) if self._looked_at.get(pid, 0) <= before)
        return sorted(due, key=lambda pid: self._looked_at.get(pid, 0))[:_MOST_DUE]

    def node(self) -> Node:
        """Everything known now."""
        processes = dict(self._table.processes)
        return Node(
            processes=MappingProxyType(processes),
            listeners=tuple(self._listeners.values()),
            ray_sessions=self._ray_sessions,
            relays=self._relayed,
            left_out=self._left_out,
        )


def user_of(pid: int) -> int:
    """The user of a process; -1 when it is gone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116 hot, tiny
    except OSError:
        return -1


def thread_group(tid: int) -> int:
    """The process that a thread belongs to; the thread's own id when it is gone."""
    status = read(f"/proc/{tid}/status")
    _, found, rest = status.partition(b"\nTgid:")
    return int(rest.split(None, 1)[0]) if found else tid
