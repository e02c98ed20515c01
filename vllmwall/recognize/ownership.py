"""The workload of each listening socket, by the processes that hold it.

Forks inherit sockets and processes can pass them, so several may hold one. A socket that an
outsider opened never belongs to a workload. Except one of the init process: that keeps what it
passes to the service that the socket is for (systemd.socket(5)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vllmwall.model import Listener, Node, Process
from vllmwall.recognize.process_tree import Ancestry

_INIT = 1


@dataclass(frozen=True)
class Owned:
    """A listener of a workload. ``owners`` has the one nearest to the root first; empty: its
    owner was not seen, but nothing else lives in its namespace."""

    listener: Listener
    root: int
    owners: tuple[int, ...]


def owned_by(
    node: Node,
    parents: Mapping[int, int],
    members: Mapping[int, int],
    pause: Callable[[], None] = lambda: None,
) -> list[Owned | Listener]:
    """Each listener of the node with its workload, or as it is when it belongs to none. ``pause``
    is called between them."""
    alone = _sole_workloads(node.processes, members)
    shared = (pid for one in node.listeners if len(one.pids) > 1 for pid in one.pids)
    ancestry = Ancestry(shared, parents)
    found: list[Owned | Listener] = []
    for one in node.listeners:
        pause()
        found.append(_owner(one, node.processes, ancestry, members, alone))
    return found


def _owner(
    listener: Listener,
    processes: Mapping[int, Process],
    ancestry: Ancestry,
    members: Mapping[int, int],
    alone: Mapping[int, int],
) -> Owned | Listener:
    """The workload a listener belongs to, or the listener itself when it belongs to none.

    A socket that an outsider holds too is the outsider's where that is an ancestor, which
    opened it and let it leak, or another user.
    """
    if not listener.pids and listener.namespace in alone:
        return Owned(listener, alone[listener.namespace], ())
    owners = [pid for pid in listener.pids if pid in members]
    outsiders = outside(listener, processes, members)
    if not owners or (outsiders and _is_theirs(outsiders, owners, processes, ancestry)):
        return listener
    if len(owners) == 1:
        return Owned(listener, members[owners[0]], tuple(owners))
    return _shared(listener, owners, processes, ancestry, members)


def outside(
    listener: Listener, processes: Mapping[int, Process], members: Mapping[int, int]
) -> list[int]:
    """The processes that hold a listener and belong to no workload, without init."""
    known = (pid for pid in listener.pids if pid in processes and pid not in members)
    return [pid for pid in known if pid != _INIT]


def inherited(
    listener: Listener, processes: Mapping[int, Process], members: Mapping[int, int]
) -> tuple[int, str] | None:
    """The root of the workload that holds another program's listener too, and that program."""
    roots = [members[pid] for pid in listener.pids if pid in members]
    if not roots:
        return None
    names = (f"{processes[pid].comm} ({pid})" for pid in outside(listener, processes, members))
    return roots[0], ", ".join(names)


def _shared(
    listener: Listener,
    owners: Sequence[int],
    processes: Mapping[int, Process],
    ancestry: Ancestry,
    members: Mapping[int, int],
) -> Owned:
    """Held by several: the oldest owner's workload has it."""
    first = min(owners, key=lambda pid: (processes[pid].start_time, pid))
    root = members[first]
    mine = [pid for pid in owners if members[pid] == root]
    mine.sort(key=lambda pid: (ancestry.depth(pid), pid))
    return Owned(listener, root, tuple(mine))


def _is_theirs(
    outsiders: Iterable[int],
    owners: Sequence[int],
    processes: Mapping[int, Process],
    ancestry: Ancestry,
) -> bool:
    users = {processes[pid].uid for pid in owners}
    ordered = ancestry.in_order(owners)
    return any(
        processes[pid].uid not in users or ancestry.first_below(pid, ordered) is not None
        for pid in outsiders
    )


def _sole_workloads(processes: Mapping[int, Process], members: Mapping[int, int]) -> dict[int, int]:
    """Network namespaces in which every process belongs to one workload: a container's."""
    inside: dict[int, set[int | None]] = {}
    for pid, process in processes.items():
        inside.setdefault(process.namespace, set()).add(members.get(pid))
    sole: dict[int, int] = {}
    for namespace, roots in inside.items():
        root = next(iter(roots))
        if namespace and len(roots) == 1 and root is not None:
            sole[namespace] = root
    return sole
