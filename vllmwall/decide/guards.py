"""The cgroups that get a guard, and the reason for each workload that gets none. Pure.

A guard blocks strangers at every TCP port of a cgroup, so it is only for cgroups in which nothing
but a workload listens (DESIGN §7). The rules for single listeners always exist as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from vllmwall.linux.cgroups import SLICE, is_within, job_of, level_of
from vllmwall.model import Guard, Listener, Policy, Process, Proto, Recognition, WorkloadId

DEEPEST = 8

Processes = Mapping[int, Process]


@dataclass(frozen=True)
class Guarding:
    """The guards of every network namespace (by inode), and for every workload its guarded
    cgroups, or the reason why it has none."""

    guards: Mapping[int, frozenset[Guard]] = field(default_factory=dict)
    cgroups: Mapping[WorkloadId, frozenset[Guard]] = field(default_factory=dict)
    reasons: Mapping[WorkloadId, str] = field(default_factory=dict)


def candidates(recognition: Recognition, processes: Processes) -> frozenset[str]:
    """The cgroups of this node's workloads that are made for one job each."""
    pids = (pid for workload in recognition.workloads for pid in workload.pids)
    paths = {processes[pid].cgroup for pid in pids if pid in processes}
    return frozenset(job for path in paths if (job := job_of(path)) is not None)


def guarding(
    recognition: Recognition,
    processes: Processes,
    numbers: Mapping[str, int],
    armed: Mapping[str, frozenset[int]],
    policy: Policy,
    *,
    pause: Callable[[], None] = lambda: None,
) -> Guarding:
    """The guards to apply. ``numbers`` are the kernel's, of those `candidates` and ``armed`` paths
    that exist now; ``armed`` maps paths to be guarded whenever they exist to their namespaces.
    ``pause`` is called every few steps."""
    outsiders = _outsiders(recognition, processes, policy)
    guard_of = cache(lambda path: _guard(path, numbers, outsiders))
    guards: dict[int, set[Guard]] = {}
    for path, namespaces in armed.items():
        if isinstance(guard := guard_of(path), Guard):
            for namespace in namespaces:
                guards.setdefault(namespace, set()).add(guard)
    held: dict[WorkloadId, set[Guard]] = {}
    reasons: dict[WorkloadId, str] = {}
    for workload in recognition.workloads:
        for path, namespace in _places(workload.pids, processes):
            pause()
            guard = guard_of(path)
            if isinstance(guard, Guard):
                guards.setdefault(namespace, set()).add(guard)
                held.setdefault(workload.id, set()).add(guard)
            else:
                reasons.setdefault(workload.id, guard)
    return Guarding(
        {namespace: frozenset(those) for namespace, those in guards.items()},
        {one: frozenset(those) for one, those in held.items()},
        reasons,
    )


def _places(pids: Iterable[int], processes: Processes) -> set[tuple[str, int]]:
    """The cgroup paths and network namespaces of a workload's processes."""
    known = (processes[pid] for pid in pids if pid in processes)
    return {(one.cgroup, one.namespace) for one in known if one.namespace}


def _outsiders(recognition: Recognition, processes: Processes, policy: Policy) -> Mapping[str, str]:
    """The cgroups of listeners that belong to no workload, with a description of the listener."""
    return {
        processes[pid].cgroup: f"{processes[pid].comm} ({pid}) listens there too, {one.where}"
        for one in recognition.unclaimed
        if _is_reached(one, policy)
        for pid in one.pids
        if pid in processes
    }


def _is_reached(listener: Listener, policy: Policy) -> bool:
    failsafe = (listener.proto, listener.port) in policy.failsafe
    return listener.proto is Proto.TCP and not listener.is_loopback and not failsafe


def _guard(path: str, numbers: Mapping[str, int], outsiders: Mapping[str, str]) -> Guard | str:
    """The guard that covers a path, or the reason why there is none."""
    if is_within(path, SLICE) and SLICE in numbers:
        return Guard(1, numbers[SLICE], SLICE)  # the operator chose it: outsiders do not matter
    job = path if path in numbers else job_of(path)
    if job is None:
        return f"{path} is shared with other programs of its user"
    if job not in numbers:
        return f"there is no cgroup {job} in the v2 hierarchy"
    if level_of(job) > DEEPEST:
        return f"{job} lies deeper than {DEEPEST} levels"
    for cgroup, outsider in outsiders.items():
        if is_within(cgroup, job):
            return f"{job} is not the workload's alone: {outsider}"
    return Guard(level_of(job), numbers[job], job)
