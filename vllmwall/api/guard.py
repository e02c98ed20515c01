"""`vllmwall run`: guard the cgroup of the process that asks, before it starts a job there."""

from __future__ import annotations

from vllmwall.api.errors import Json
from vllmwall.engine.state import State


def guard(state: State, arguments: Json) -> Json:
    """Guard the cgroup of process ``pid``, which the kernel names."""
    pid = arguments.get("pid")
    reconciler = state.reconciler
    found = reconciler.guard(pid if isinstance(pid, int) else 0)
    return {
        "guarded": not found.why_not,
        "why": found.why_not,
        "namespace": reconciler.observer.namespaces.name(found.namespace),
        "cgroup": found.cgroup,
    }
