"""What came and went between two full passes, for the log and the events.

Says only what was read back: a listener is walled when a rule for it stands in the kernel, and
opened when none stands or the rule lets everyone in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vllmwall.engine.log import Logger
from vllmwall.engine.reconciler import WallKeeper
from vllmwall.model import PUBLIC, Listener, Mode, Network, Proto, Wall, Workload, WorkloadId

_Place = tuple[WorkloadId, int, str]


@dataclass(frozen=True)
class _Seen:
    """A listener as it was: for whom, and why it has no rule."""

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
class Noticing:
    """Compares each full pass with the one before it and logs the difference."""

    log: Logger
    _workloads: dict[WorkloadId, Workload] = field(default_factory=dict)
    _listeners: dict[_Place, _Seen] = field(default_factory=dict)
    _guards: frozenset[tuple[str, str]] = frozenset()
    _peers: tuple[Network, ...] | None = None

    def look(self, keeper: WallKeeper) -> None:
        """Log what is new since the last call."""
        self._look_at_peers(keeper.peers.networks())
        workloads = {one.id: one for one in keeper.recognition.workloads}
        for added in workloads.keys() - self._workloads.keys():
            self._tell_workload("workload appeared", workloads[added])
        self._look_at_guards(frozenset(_guards(keeper)))
        self._look_at_listeners(dict(_listeners(keeper)))
        for gone in self._workloads.keys() - workloads.keys():
            self._tell_workload("workload ended", self._workloads[gone])
        self._workloads = workloads

    def _tell_workload(self, text: str, one: Workload) -> None:
        self.log.info(text, workload=one.name, stack=one.stack.value, pid=one.id.root_pid)

    def _look_at_peers(self, peers: tuple[Network, ...]) -> None:
        before, self._peers = self._peers, peers
        if before is not None and before != peers:
            added = [str(one) for one in peers if one not in before]
            removed = [str(one) for one in before if one not in peers]
            self.log.info("peers changed", added=added, removed=removed)

    def _look_at_guards(self, guards: frozenset[tuple[str, str]]) -> None:
        for namespace, path in sorted(guards - self._guards):
            self.log.info("guard armed", namespace=namespace, cgroup=path)
        for namespace, path in sorted(self._guards - guards):
            self.log.info("guard gone", namespace=namespace, cgroup=path)
        self._guards = guards

    def _look_at_listeners(self, listeners: dict[_Place, _Seen]) -> None:
        for place, one in listeners.items():
            before = self._listeners.get(place)
            if before is None or before.is_open != one.is_open:
                self._tell_listener("listener opened" if one.is_open else "listener walled", one)
        for place, one in self._listeners.items():
            if place not in listeners:
                self._tell_listener("listener gone", one)
        self._listeners = listeners

    def _tell_listener(self, text: str, one: _Seen) -> None:
        self.log.debug(
            text,
            namespace=one.namespace,
            workload=one.workload,
            listener=one.where,
            role=one.role,
            audience=list(one.audience),
            reason=one.reason,
        )


def _guards(keeper: WallKeeper) -> Iterator[tuple[str, str]]:
    for inode in keeper.walls.spaces:
        standing = keeper.walls.standing(inode)
        paths = {one.id: one.path for one in keeper.guarding.guards.get(inode, ())}
        for guard in standing.guards if standing else ():
            path = guard.path or paths.get(guard.id, "")
            yield keeper.observer.namespaces.name(inode), path or f"cgroup {guard.id}"


def _listeners(keeper: WallKeeper) -> Iterator[tuple[_Place, _Seen]]:
    reasons = {one.listener: one.reason for one in keeper.decision.skipped}
    for workload in keeper.recognition.workloads:
        for labelled in workload.listeners:
            one, role = labelled.listener, labelled.label.role
            if one.is_loopback or one.proto is Proto.UNIX:
                continue
            reason = reasons.get(one, "")
            ruled = not reason and _is_ruled(keeper.walls.standing(one.namespace), one)
            audience = keeper.policy.audience_of(role) if ruled else (PUBLIC,)
            space = keeper.observer.namespaces.name(one.namespace)
            where = (workload.id, one.namespace, one.where)
            why = reason or ("" if ruled else "no rule stands for it")
            yield where, _Seen(workload.name, space, one.where, role.value, audience, why)


def _is_ruled(standing: Wall | None, one: Listener) -> bool:
    """Whether a rule for the port was read back that drops something."""
    return (
        standing is not None
        and standing.mode is Mode.ENFORCE
        and any(
            (entry.proto, entry.port) == (one.proto, one.port)
            and entry.address in (None, one.plain_address)
            for entry in standing.entries
        )
    )
