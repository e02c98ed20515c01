"""Handlers of kernel events: close ports and cgroups at once, then read the real state.

An event is a hint, and a wrong one can only close, for as long as the pass takes that comes next
(DESIGN §5): a few milliseconds. So a port of a process that is known to be a workload's gets the
audience of an unrecognized listener, unless somebody else is known to listen there. A cgroup of
a path that was guarded gets its guard before there is a process in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import zip_longest
from typing import TypeVar

from vllmwall.enforce.backend import EnforceError
from vllmwall.engine.reconciler import Reconciler
from vllmwall.linux.cgroups import level_of
from vllmwall.model import NODE, PUBLIC, Guard, Listener, Proto, Role, Wall, WallEntry
from vllmwall.observe import thread_group, user_of
from vllmwall.observe.events import (
    UNNAMED,
    BindEvent,
    CgroupEvent,
    CloseEvent,
    Event,
    ExecEvent,
    ListenEvent,
    LostEvents,
)

# Read at once; what is more is left to a full pass, which a storm does not delay.
_EXECS_AT_ONCE = 64
_LISTENS_AT_ONCE = 128
_BINDS_AT_ONCE = 64
_HASHED_SECONDS = 0.005  # mostly enough until sock_diag finds a listener after its event
_One = TypeVar("_One")
_Listens = list[tuple[ListenEvent, int]]  # with the process
_NOTE = f"{Role.UNKNOWN.value} new"


@dataclass(frozen=True)
class Followed:
    """What events ask for: ``quick``, a quick pass now; ``full``, why a full one soon.

    ``reactions``: how long each port that was closed at once had been open, in seconds.
    ``waiting``: the other new listeners, each with its process (a pass must recognize them).
    """

    quick: bool = False
    full: str = ""
    reactions: tuple[float, ...] = ()
    waiting: tuple[tuple[ListenEvent, int], ...] = ()


def follow(
    reconciler: Reconciler, events: Sequence[Event], later: Callable[[], Iterable[Event]] = tuple
) -> Followed:
    """Do what cannot wait, and read what the events are about.

    ``later`` reads what came meanwhile, and is called after a search: what that found may have its
    event, with the backlog, only there.
    """
    guarded = _close_cgroups(reconciler, events)
    unnamed = any(_is_unnamed(one) for one in events)
    searched = unnamed and reconciler.observer.search()
    if searched:
        more = tuple(later())
        guarded |= _close_cgroups(reconciler, more)
        events = (*events, *more)
    owner = lru_cache(None)(partial(_owner, reconciler))
    heard = [(one, pid) for one in _still_open(events) for pid in _who(reconciler, one, owner)]
    listens = _in_turn(heard, lambda one: one[1])[:_LISTENS_AT_ONCE]
    read, reactions, waiting = time.monotonic(), [], []
    for listen, pid in listens:
        if close_port(reconciler, listen, pid):
            reactions.append(time.monotonic() - (listen.at or read))
        else:
            waiting.append((listen, pid))
    moved = _follow_udp(reconciler, events, owner)
    early = _observed_in_vain(reconciler, listens)
    closed = {one.port for one in events if isinstance(one, CloseEvent)}
    gone = reconciler.observer.observe_close(closed)
    execs = list(dict.fromkeys(one.pid for one in events if isinstance(one, ExecEvent) and one.pid))
    first = _in_turn(execs, lambda pid: pid)[:_EXECS_AT_ONCE]
    begun = [pid for pid in first if _begins_a_workload(reconciler, pid)]
    reconciler.begun.update(begun)
    lost = any(isinstance(one, LostEvents) for one in events)
    lost |= len(first) < len(execs) or len(listens) < len(heard)
    why = "lost events" if lost else "processes without a name" if unnamed > searched else ""
    if early and not why:
        why = "a listener that was not there yet"
    # Rules for listeners that are not found yet stay until then: a quick pass would remove them.
    quick = len(listens) > len(early) or any((gone, moved, begun, searched, guarded))
    return Followed(quick, why, tuple(reactions), tuple(waiting))


def _is_unnamed(event: Event) -> bool:
    if isinstance(event, ExecEvent):
        return event.pid == UNNAMED
    return isinstance(event, ListenEvent | BindEvent) and event.tid == UNNAMED


def _still_open(events: Iterable[Event]) -> list[ListenEvent]:
    """The listeners that their thread has not closed since."""
    found: dict[tuple[int, int], list[ListenEvent]] = {}
    for event in events:
        if isinstance(event, ListenEvent):
            found.setdefault((event.tid, event.port), []).append(event)
        elif isinstance(event, CloseEvent) and event.tid != UNNAMED:
            del found.get((event.tid, event.port), [])[:1]
    return [event for each in found.values() for event in each]


def _in_turn(those: Sequence[_One], process: Callable[[_One], int]) -> list[_One]:
    """One of each user, then a second one of each, and so on: none waits for another's storm."""
    users: dict[int, list[_One]] = {}
    for one in those:
        users.setdefault(user_of(process(one)), []).append(one)
    return [one for each in zip_longest(*users.values()) for one in each if one is not None]


def _follow_udp(
    reconciler: Reconciler, events: Iterable[Event], owner: Callable[[int], int]
) -> bool:
    """Close the UDP ports that workloads have just bound; whether any UDP socket came or went."""
    binds = {one.tid for one in events if isinstance(one, BindEvent)}
    binds -= {one.tid for one in events if isinstance(one, ListenEvent)} | {UNNAMED}  # of TCP
    if not binds:
        return False
    first = sorted(binds, key=lambda tid: tid not in reconciler.members)[:_BINDS_AT_ONCE]
    came, gone = reconciler.observer.observe_udp(reconciler.members.intersection(map(owner, first)))
    for listener in came:
        _close(reconciler, listener)
    return bool(came or gone)


def _observed_in_vain(reconciler: Reconciler, listens: _Listens) -> _Listens:
    """Read what listens; what is not there yet is looked for once more, and its backlog kept.

    Linux reports a listener before it can be found (``inet_csk_listen_start``: the state is stored
    first, the socket hashed last), and its process may have lost the processor in between.
    """
    early = _observe(reconciler, listens)
    if early:
        time.sleep(_HASHED_SECONDS)
        early = _observe(reconciler, early)
    for event, _ in early:
        if event.backlog is not None:
            reconciler.observer.note_backlog(event.port, event.backlog)
    return early


def _observe(reconciler: Reconciler, listens: _Listens) -> _Listens:
    observe = reconciler.observer.observe_listen
    return [(one, pid) for one, pid in listens if not observe(pid, one.port, one.backlog)]


def _close_cgroups(reconciler: Reconciler, events: Iterable[Event]) -> bool:
    closed = [close_cgroup(reconciler, one) for one in events if isinstance(one, CgroupEvent)]
    return any(closed)


def _owner(reconciler: Reconciler, tid: int) -> int:
    """The process of a thread."""
    return tid if tid in reconciler.members else thread_group(tid)


def _who(
    reconciler: Reconciler, event: ListenEvent, owner: Callable[[int], int]
) -> tuple[int, ...]:
    """The processes that it is about."""
    if event.tid == UNNAMED:
        if event.backlog is not None:  # which the next reading may need, where this one came late
            reconciler.observer.note_backlog(event.port, event.backlog)
        return reconciler.observer.owners(event.port)
    return (owner(event.tid),)


def late_reactions(reconciler: Reconciler, followed: Followed) -> Iterator[float]:
    """How long the ports were open that only the quick pass has closed, in seconds."""
    now = time.monotonic()
    for event, pid in followed.waiting:
        process = reconciler.observer.process(pid) if pid in reconciler.members else None
        active = reconciler.walls.actual(process.namespace) if process else None
        if active and event.at and any(_closes(one, event) for one in active.entries):
            yield now - event.at


def _closes(entry: WallEntry, event: ListenEvent) -> bool:
    return entry.port == event.port and entry.proto is Proto.TCP and PUBLIC not in entry.audience


def _begins_a_workload(reconciler: Reconciler, pid: int) -> bool:
    """Read a program before it can rename itself; whether its cgroup may want a guard now."""
    process = reconciler.observer.note_exec(pid)
    return process is not None and reconciler.is_claimed(process)


def close_port(reconciler: Reconciler, event: ListenEvent, pid: int) -> bool:
    """Close the port that a workload's process has just opened; whether it was still to close."""
    process = reconciler.observer.process(pid)
    if process is None or event.address is None:
        return False
    if pid not in reconciler.members and pid not in reconciler.begun:
        return False
    if reconciler.observer.is_held_by_others(process, event.port):
        return False  # a socket of another namespace, or a second one of a group
    return _close(reconciler, Listener(process.namespace, Proto.TCP, event.port, event.address))


def _close(reconciler: Reconciler, listener: Listener) -> bool:
    """Give a listener the audience of an unrecognized one; whether it had none yet."""
    active = reconciler.walls.actual(listener.namespace)
    if active is None:
        return False
    failsafe = active.failsafe if listener.proto is Proto.TCP else active.failsafe_udp
    entries = (
        frozenset(_entries(active, listener)) if listener.port not in failsafe else frozenset()
    )
    with suppress(OSError, KeyError, EnforceError):  # the pass tries again, and reports
        reconciler.walls.close(listener.namespace, entries)
        return bool(entries)
    return False


def close_cgroup(reconciler: Reconciler, event: CgroupEvent) -> bool:
    """Close a cgroup that was just made, if its path must be guarded; whether a pass must look.

    The number of the guard is what the path has now, whatever the event says.
    """
    path = reconciler.observer.cgroup_path(event.path, event.id)
    spaces = reconciler.armed.namespaces(path) if path else frozenset()
    if not path or not spaces or reconciler.why_no_guards:
        return False
    number = reconciler.observer.cgroup_numbers([path]).get(path)
    if number is None:  # it is gone again
        return False
    reconciler.armed.expect(path, spaces)
    guard = frozenset({Guard(level_of(path), number, path)})
    for inode in spaces:
        with suppress(OSError, KeyError, EnforceError):
            reconciler.walls.close(inode, frozenset(), guard)
    return True


def _entries(active: Wall, listener: Listener) -> Iterator[WallEntry]:
    """What closes the port and is not there yet. ``[::]`` may take IPv4 too: the pass will know."""
    at_port = (one for one in active.entries if one.port == listener.port)
    there = {(one.family, one.proto, one.port, one.address) for one in at_port}
    audience = (NODE,) if listener.is_loopback else active.guard_audience
    for to in listener.bound_to:
        if (to.family, listener.proto, listener.port, to.address) not in there:
            yield WallEntry(to.family, listener.proto, listener.port, audience, to.address, _NOTE)
