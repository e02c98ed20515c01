"""Parts of an observed node: one workload, one process with its family, or one network namespace.

Recognition of a part gives the same result as that of the whole, as far as it depends on that part.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import replace
from ipaddress import IPv4Address

from vllmwall.model import Listener, Node, Proto, Stack, Workload

_INIT = 1
_NOBODY = 0  # with no pid at all it would be a socket of the only workload in its namespace
_LOOPBACK = IPv4Address("127.0.0.1")


def of_workloads(node: Node, workloads: Iterable[Workload]) -> Node:
    """Their processes and listeners, and programs outside that hold one of those, as a relay.

    General software that is a workload's only beside its stack (etcd) is not recognized alone."""
    found = tuple(workloads)
    pids = {pid for one in found for pid in one.pids}
    labelled = {one.listener for workload in found for one in workload.listeners}
    listeners = [one for one in node.listeners if one in labelled or pids.intersection(one.pids)]
    pids |= {pid for one in listeners for pid in one.pids if pid != _INIT}
    return _part(node, pids, listeners, with_ray=any(one.stack is Stack.RAY for one in found))


def of_process(node: Node, pid: int) -> Node:
    """A process that belongs to no workload, its descendants, and its ancestors of the same user in
    the same cgroup."""
    below = reached = {pid}
    while reached:
        reached = {one.pid for one in node.processes.values() if one.ppid in below} - below
        below |= reached
    pids = {*below, *_ancestors(node, pid)}
    return _part(node, pids, [one for one in node.listeners if pids.intersection(one.pids)])


def of_namespace(node: Node, inode: int) -> Node:
    """The processes and listeners of one network namespace."""
    pids = {pid for pid, one in node.processes.items() if one.namespace == inode}
    listeners = [one for one in node.listeners if one.namespace == inode]
    return _part(node, pids, listeners, with_ray=True)


def _part(
    node: Node, pids: Set[int], listeners: Iterable[Listener], *, with_ray: bool = False
) -> Node:
    kept = tuple(replace(one, pids=tuple(p for p in one.pids if p in pids)) for one in listeners)
    sockets = {(one.namespace, one.inode) for one in kept}
    ports = {one.port for one in kept}
    sessions = (
        one for one in node.ray_sessions if not ports.isdisjoint(_ports(one.ports.values()))
    )
    return Node(
        {pid: one for pid, one in node.processes.items() if pid in pids},
        (*kept, *_longest_queues(node, kept)),
        tuple(sessions) if with_ray else (),
        tuple(one for one in node.relays if {(one[0], one[1]), (one[0], one[2])} <= sockets),
    )


def _ports(groups: Iterable[tuple[int, ...]]) -> Iterator[int]:
    return (port for group in groups for port in group)


def _longest_queues(node: Node, kept: Iterable[Listener]) -> Iterator[Listener]:
    """A listener that stands for the longest queue of each namespace: recognition compares others
    with it (it is the sysctl somaxconn, or near it). It says nothing else of the node."""
    have = _caps(kept)
    for namespace, longest in _caps(node.listeners).items():
        if namespace in have and longest > have[namespace]:
            yield Listener(namespace, Proto.TCP, 0, _LOOPBACK, pids=(_NOBODY,), queue_limit=longest)


def _caps(listeners: Iterable[Listener]) -> dict[int, int]:
    caps: dict[int, int] = {}
    for one in listeners:
        caps[one.namespace] = max(caps.get(one.namespace, 0), one.queue_limit or 0)
    return caps


def _ancestors(node: Node, pid: int) -> Iterator[int]:
    """The nearest ones, as long as they share user and cgroup."""
    process, seen = node.processes[pid], {pid}
    while (above := node.processes.get(process.ppid)) and above.pid not in (*seen, _INIT):
        if (above.uid, above.cgroup) != (process.uid, process.cgroup):
            return
        yield above.pid
        seen.add(above.pid)
        process = above
