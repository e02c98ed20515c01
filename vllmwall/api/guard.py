"""`vllmwall run`: guard the cgroup of the process that asks, before it starts a job there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllmwall.engine.state import State


@dataclass(frozen=True)
class GuardRequest:
    """``pid`` is the process that asks, by the kernel's word."""

    pid: int


@dataclass(frozen=True)
class Guarded:
    """Whether the cgroup is guarded in that network namespace; ``why`` it is not."""

    guarded: bool
    why: str
    namespace: str
    cgroup: str


def guard(state: State, request: GuardRequest) -> Guarded:
    """Guard the cgroup of the process that asks."""
    found = state.reconciler.guard(request.pid)
    name = state.reconciler.observer.namespaces.name(found.namespace)
    return Guarded(not found.why_not, found.why_not, name, found.cgroup)
