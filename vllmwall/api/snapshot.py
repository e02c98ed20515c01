"""`vllmwall snapshot`: the node or a part of it, redacted, for a bug report or a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllmwall import __version__
from vllmwall.api.errors import ControlError

if TYPE_CHECKING:
    from vllmwall.engine.reconciler import Reconciler
    from vllmwall.engine.state import State
    from vllmwall.model import Node

_MOST_NAMES = 12


@dataclass(frozen=True)
class SnapshotRequest:
    """A snapshot of the node; or only of the workloads of this name, of the workload or family of a
    process by its pid, or of a network namespace by its name."""

    workload: str = ""
    namespace: str = ""


@dataclass(frozen=True)
class NodeSnapshot:
    """The node as `vllmwall.observe.snapshot` writes it."""

    snapshot: Mapping[str, object]


def snapshot(state: State, request: SnapshotRequest) -> NodeSnapshot:
    """The node as it was last read, and as events changed it since. Raises ControlError where it
    has no such part."""
    import platform

    from vllmwall.observe.snapshot import dump  # the command line needs only the answer's type

    host_facts = {"kernel": platform.release(), "version": __version__}
    return NodeSnapshot(dump(_part(state.reconciler, request), host_facts=host_facts))


def _part(reconciler: Reconciler, request: SnapshotRequest) -> Node:
    from vllmwall.observe.parts import of_namespace

    node = reconciler.observer.node()
    if request.workload and request.namespace:
        raise ControlError("bad-request", "a workload or a namespace can be named, not both")
    if request.workload:
        return _of_workload(reconciler, node, request.workload)
    if request.namespace:
        spaces = reconciler.observer.namespaces
        names = {spaces.name(inode): inode for inode in spaces.inodes}
        if request.namespace not in names:
            raise _nothing("network namespace", request.namespace, names)
        return of_namespace(node, names[request.namespace])
    return node


def _of_workload(reconciler: Reconciler, node: Node, name: str) -> Node:
    from vllmwall.observe.parts import of_process, of_workloads

    workloads = reconciler.recognition.workloads
    pid = int(name) if name.isascii() and name.isdigit() else 0
    found = [one for one in workloads if one.name == name]
    if found := found or [one for one in workloads if pid in one.pids]:
        return of_workloads(node, found)
    if pid in node.processes:
        return of_process(node, pid)
    raise _nothing("workload or process", name, {one.name: 0 for one in workloads})


def _nothing(what: str, name: str, names: Mapping[str, int]) -> ControlError:
    listed = ", ".join(sorted(names)[:_MOST_NAMES])
    more = " …" if len(names) > _MOST_NAMES else ""
    return ControlError("failed", f"no {what} {name} here", listed and f"There is: {listed}{more}.")
