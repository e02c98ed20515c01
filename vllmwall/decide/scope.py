"""The workloads of some network namespaces only. Pure."""

from __future__ import annotations

from dataclasses import replace

from vllmwall.model import Node, Recognition, Workload


def within(found: Recognition, node: Node, only: frozenset[int]) -> Recognition:
    """Without the workloads that have neither a process nor a listener in the namespaces ``only``
    (inodes); empty: all of them."""
    if not only:
        return found
    kept = (one for one in found.workloads if not only.isdisjoint(_spaces(one, node)))
    return replace(found, workloads=tuple(kept))


def _spaces(workload: Workload, node: Node) -> set[int]:
    processes = (node.processes[pid] for pid in workload.pids if pid in node.processes)
    inside = {one.namespace for one in processes}
    return inside | {one.listener.namespace for one in workload.listeners}
