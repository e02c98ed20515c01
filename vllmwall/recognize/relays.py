"""Ports of other programs that relay to a workload's port (`vllmwall.observe.relays`). Pure.

A relay connects over lo, where the wall does not see the client's address. So its port gets the
role of the one behind it. Not where that is an API: a proxy in front of it is the operator's, and
may be open where the API itself is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vllmwall.model import (
    Evidence,
    Label,
    LabelledListener,
    Listener,
    Node,
    Recognition,
    Role,
    Workload,
)


def with_relays(recognition: Recognition, node: Node) -> Recognition:
    """Give each workload the ports that lead to it through a relay."""
    inner = {(space, outer): inner for space, outer, inner in node.relays}
    outer = {(one.namespace, one.inode): one for one in recognition.unclaimed}
    leading = {key: one for key, one in outer.items() if key in inner}
    if not leading:
        return recognition
    behind: dict[tuple[int, int], list[Listener]] = {}
    for (space, inode), one in leading.items():
        behind.setdefault((space, inner[space, inode]), []).append(one)
    workloads = tuple(_with(one, behind, node) for one in recognition.workloads)
    added = {one.listener for workload in workloads for one in workload.listeners}
    unclaimed = tuple(one for one in recognition.unclaimed if one not in added)
    return replace(recognition, workloads=workloads, unclaimed=unclaimed)


def _with(
    workload: Workload, behind: Mapping[tuple[int, int], list[Listener]], node: Node
) -> Workload:
    added = [
        LabelledListener(outer, _label(outer, one, node))
        for one in workload.listeners
        if one.label.role is not Role.API
        for outer in behind.get((one.listener.namespace, one.listener.inode), ())
    ]
    return replace(workload, listeners=(*workload.listeners, *added)) if added else workload


def _label(outer: Listener, one: LabelledListener, node: Node) -> Label:
    names = sorted({node.processes[pid].comm for pid in outer.pids if pid in node.processes})
    detail = f"{', '.join(names)} relays it to {one.listener.where}"
    return replace(one.label, evidence=(*one.label.evidence, Evidence("forwarder", detail)))
