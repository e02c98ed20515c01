"""Which cgroups are closed before their ports exist, and why others are not. Pure.

A guard refuses a stranger at every TCP port of a cgroup, so it may only stand where nothing but
a workload listens (DESIGN §7). Beneath it there are always the rules for single listeners.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vllmwall.linux.cgroups import SLICE, is_within, job_of, level_of
from vllmwall.model import Guard, Listener, Policy, Process, Proto, Recognition, WorkloadId

DEEPEST = 8

Processes = Mapping[int, Process]


@dataclass(frozen=True)
class Guarding:
    """The guards of every network namespace (by inode), and of every workload the cgroups that
    hold it, or why it has no guard."""

    guards: Mapping[int, frozenset[Guard]] = field(default_factory=dict)
    cgroups: Mapping[WorkloadId, frozenset[Guard]] = field(default_factory=dict)
    reasons: Mapping[WorkloadId, str] = field(default_factory=dict)


def candidates(recognition: Recognition, processes: Processes) -> frozenset[str]:
    """The cgroups that the workloads of this node have to themselves by their kind."""
    pids = (pid for workload in recognition.workloads for pid in workload.pids)
    paths = {processes[pid].cgroup for pid in pids if pid in processes}
    return frozenset(job for path in paths if (job := job_of(path)) is not None)


def guarding(
    recognition: Recognition,
    processes: Processes,
    numbers: Mapping[str, int],
    armed: Mapping[str, frozenset[int]],
    policy: Policy,
) -> Guarding:
    """Decide. ``numbers`` holds those of `candidates` and of ``armed`` that exist now; ``armed``
    the paths that shall be guarded whenever they exist, and in which namespaces."""
    outsiders = _outsiders(recognition, processes, policy)
    guards: dict[int, set[Guard]] = {}
    for path, namespaces in armed.items():
        if isinstance(guard := _guard(path, numbers, outsiders), Guard):
            for namespace in namespaces:
                guards.setdefault(namespace, set()).add(guard)
    held: dict[WorkloadId, set[Guard]] = {}
    reasons: dict[WorkloadId, str] = {}
    for workload in recognition.workloads:
        for path, namespace in _places(workload.pids, processes):
            guard = _guard(path, numbers, outsiders)
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
    """The cgroups in which something listens that is no workload's, with what it is."""
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
    """The guard that covers a path, or why there is none."""
    if is_within(path, SLICE) and SLICE in numbers:
        return Guard(1, numbers[SLICE], SLICE)  # the operator's word: no outsider in there
    job = path if path in numbers else job_of(path)
    if job is None:
        return f"{path} is shared with whatever else its user starts"
    if job not in numbers:
        return f"there is no cgroup {job} in the v2 hierarchy"
    if level_of(job) > DEEPEST:
        return f"{job} lies deeper than {DEEPEST} levels"
    for cgroup, outsider in outsiders.items():
        if is_within(cgroup, job):
            return f"{job} is not the workload's alone: {outsider}"
    return Guard(level_of(job), numbers[job], job)
