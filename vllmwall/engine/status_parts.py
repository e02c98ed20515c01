"""Parts of the status that only the reconciler's rooms together know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vllmwall.engine.status_facts import NamespaceFacts
from vllmwall.model import Role

if TYPE_CHECKING:
    from vllmwall.engine.reconciler import Reconciler


def unreadable(reconciler: Reconciler) -> Iterator[NamespaceFacts]:
    """Namespaces with a workload or a wall in which we cannot see the listeners now."""
    namespaces, process = reconciler.observer.namespaces, reconciler.observer.process
    members = filter(None, map(process, reconciler.members))
    inhabited = {one.namespace for one in members}
    for inode, error in namespaces.errors.items():
        if inode in reconciler.walls.spaces or inode in inhabited:
            yield NamespaceFacts(inode, namespaces.name(inode), error=error)


def web_servers(reconciler: Reconciler) -> Iterator[tuple[int, str]]:
    """The pids and names of programs that look like web servers and are not proven to be APIs."""
    for workload in reconciler.recognition.workloads:
        for one in workload.listeners:
            for pid in one.listener.pids if one.label.role is Role.WEB else ():
                if process := reconciler.observer.process(pid):
                    yield pid, process.comm


def failures(reconciler: Reconciler) -> Iterator[str]:
    """What could not be done, a line for each."""
    name, walls = reconciler.observer.namespaces.name, reconciler.walls
    for inode, failure in walls.failures():
        is_taken = reconciler.is_taken(inode)
        unguarded = "not guarded" if is_taken else "the last change was not taken"
        yield f"{name(inode)}: {unguarded}: {failure}"
    if not reconciler.observer.namespaces.sees_udp:
        yield "UDP listeners cannot be seen, so they get no rule: this kernel has no udp_diag"
    if walls.cannot_sever:
        yield walls.cannot_sever
    yield from reconciler.bans.problems
    yield from reconciler.apis.problems
    yield from reconciler.adoption.problems
