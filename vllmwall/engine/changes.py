"""Changes to log: differences between two full passes, changed walls, other programs' commits.

Logs only what was read back: a listener is walled when the kernel has a rule for it, and open when
it has none or the rule lets everyone in.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache

from vllmwall.decide.adopted import Adopted
from vllmwall.decide.walls import audience_at
from vllmwall.enforce.apply import Change
from vllmwall.enforce.nftables.notifications import Touch
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.facts import ModificationFacts
from vllmwall.engine.log import Logger
from vllmwall.engine.reconciler import Reconciler
from vllmwall.model import (
    PUBLIC,
    Address,
    Mode,
    Network,
    Proto,
    Wall,
    WallEntry,
    Workload,
    WorkloadId,
)

_CONNECTIONS_SHOWN = 8
_Place = tuple[WorkloadId, int, str]


@dataclass(frozen=True)
class _ListenerState:
    """A listener as a pass left it: its audience, and why it has no rule."""

    workload: str
    namespace: str
    where: str
    role: str
    audience: tuple[str, ...]
    reason: str = ""

    @property
    def is_open(self) -> bool:
        return PUBLIC in self.audience


@dataclass
class PassChanges:
    """Compares each full pass with the one before it and logs the differences."""

    log: Logger
    _workloads: dict[WorkloadId, Workload] = field(default_factory=dict)
    _listeners: dict[_Place, _ListenerState] = field(default_factory=dict)
    _guards: frozenset[tuple[str, str]] = frozenset()
    _peers: tuple[Network, ...] | None = None
    _adopted: dict[WorkloadId, Adopted] | None = None

    def log_changes(self, reconciler: Reconciler) -> None:
        """Log what changed since the last call."""
        self._log_peers(reconciler.peers.networks())
        workloads = {one.id: one for one in reconciler.recognition.workloads}
        for added in workloads.keys() - self._workloads.keys():
            self._log_workload(EventKey.WORKLOAD_APPEARED, workloads[added])
        self._log_guards(frozenset(_guards(reconciler)))
        self._log_listeners(dict(_listeners(reconciler)))
        for gone in self._workloads.keys() - workloads.keys():
            self._log_workload(EventKey.WORKLOAD_ENDED, self._workloads[gone])
        self._workloads = workloads
        self._log_adopted({one.workload: one for one in reconciler.adoption.adopted()})

    def _log_workload(self, key: EventKey, one: Workload) -> None:
        self.log(key, workload=one.name, stack=one.stack.value, pid=one.id.root_pid)

    def _log_adopted(self, adopted: dict[WorkloadId, Adopted]) -> None:
        before, self._adopted = self._adopted or {}, adopted
        for added in adopted.keys() - before.keys():
            one = adopted[added]
            self.log(
                EventKey.ADOPTED,
                workload=one.name,
                pid=one.workload.root_pid,
                hosts=[str(each.address) for each in one.sources],
                open_ports=list(one.web_ports),
                refused=[f"{each.address} ({each.why})" for each in one.refused],
            )
        for gone in before.keys() - adopted.keys() - self._workloads.keys():
            self.log(EventKey.ADOPTED_ENDED, workload=before[gone].name, pid=gone.root_pid)

    def _log_peers(self, peers: tuple[Network, ...]) -> None:
        before, self._peers = self._peers, peers
        if before is not None and before != peers:
            added = [str(one) for one in peers if one not in before]
            removed = [str(one) for one in before if one not in peers]
            self.log(EventKey.PEERS_CHANGED, added=added, removed=removed)

    def _log_guards(self, guards: frozenset[tuple[str, str]]) -> None:
        for namespace, path in sorted(guards - self._guards):
            self.log(EventKey.GUARD_ACTIVE, namespace=namespace, cgroup=path)
        for namespace, path in sorted(self._guards - guards):
            self.log(EventKey.GUARD_REMOVED, namespace=namespace, cgroup=path)
        self._guards = guards

    def _log_listeners(self, listeners: dict[_Place, _ListenerState]) -> None:
        for place, one in listeners.items():
            before = self._listeners.get(place)
            if before is None or before.is_open != one.is_open:
                opened = EventKey.LISTENER_OPENED if one.is_open else EventKey.LISTENER_WALLED
                self._log_listener(opened, one)
        for place, one in self._listeners.items():
            if place not in listeners:
                self._log_listener(EventKey.LISTENER_GONE, one)
        self._listeners = listeners

    def _log_listener(self, key: EventKey, one: _ListenerState) -> None:
        self.log(
            key,
            namespace=one.namespace,
            workload=one.workload,
            listener=one.where,
            role=one.role,
            audience=list(one.audience),
            reason=one.reason,
        )


def log_change(log: Logger, namespace: str, change: Change) -> None:
    """Log one change that we made to a wall, and the connections that it reset."""
    before, after = change.before, change.after
    entries, guards = (before.entries, before.guards) if before else (frozenset(), frozenset())
    added, removed = _ports(after.entries - entries), _ports(entries - after.entries)
    was_banned = before.banned if before else ()
    log(
        EventKey.WALL_CREATED if before is None else EventKey.WALL_CHANGED,
        namespace=namespace,
        added=sorted(added - removed),
        changed=sorted(added & removed),
        removed=sorted(removed - added),
        guarded=sorted(one.path for one in after.guards - guards),
        banned=[str(one) for one in after.banned if one not in was_banned],
    )
    if reset := change.severed.connections:
        log(
            EventKey.CONNECTIONS_RESET,
            namespace=namespace,
            connections=[str(one) for one in reset[:_CONNECTIONS_SHOWN]],
            count=len(reset),
        )


def log_modification(log: Logger, namespace: str, commit: Touch) -> ModificationFacts:
    """Log a commit of another program that modified our table; as facts for the status."""
    pid, command, what = commit.pid, commit.command, commit.what
    log(EventKey.TABLE_MODIFIED, namespace=namespace, pid=pid, command=command, what=what)
    return ModificationFacts(time.time(), namespace, pid, command, what)


def _ports(entries: Iterable[WallEntry]) -> set[str]:
    return {f"{one.proto.value}/{one.port}" for one in entries}


def _guards(reconciler: Reconciler) -> Iterator[tuple[str, str]]:
    for inode in reconciler.walls.spaces:
        active = reconciler.walls.actual(inode)
        paths = {one.id: one.path for one in reconciler.guarding.guards.get(inode, ())}
        for guard in active.guards if active else ():
            path = guard.path or paths.get(guard.id, "")
            yield reconciler.observer.namespaces.name(inode), path or f"cgroup {guard.id}"


def _listeners(reconciler: Reconciler) -> Iterator[tuple[_Place, _ListenerState]]:
    reasons = {one.listener: one.reason for one in reconciler.decision.skipped}
    ruled_in = cache(lambda inode: _ruled(reconciler.walls.actual(inode)))
    name = cache(reconciler.observer.namespaces.name)
    for workload in reconciler.recognition.workloads:
        for labelled in workload.listeners:
            one, role = labelled.listener, labelled.label.role
            if one.is_loopback or one.proto is Proto.UNIX:
                continue
            reason = reasons.get(one, "")
            places = ruled_in(one.namespace)
            ruled = not reason and any(
                (one.proto, one.port, address) in places for address in (None, one.plain_address)
            )
            policy = reconciler.policy
            audience = audience_at(one, role, policy, workload) if ruled else (PUBLIC,)
            space = name(one.namespace)
            where = (workload.id, one.namespace, one.where)
            why = reason or ("" if ruled else "no rule is active for it")
            yield where, _ListenerState(workload.name, space, one.where, role.value, audience, why)


def _ruled(active: Wall | None) -> frozenset[tuple[Proto, int, Address | None]]:
    """Where a rule was read back that drops something."""
    if active is None or active.mode is not Mode.ENFORCE:
        return frozenset()
    return frozenset((one.proto, one.port, one.address) for one in active.entries)
