"""Ports of one network namespace that a program forwards into that of a workload. Pure.

Such a program (Podman's rootlessport, RootlessKit's built-in driver, the proxy devices of LXD and
Incus) listens in the host's namespace, and it or a child of it connects within the container's,
over lo. The wall in there does not see the client's address, so the host's port gets the role of
the one behind it.

It is known by where it lives, whatever its name: it holds a listener of another namespace than its
own, or has a child there that is the same program of the same user. Nobody enters another user's
namespace without rights over it, so the port is one that was made for that container. A listener
that a process outside holds as well is left alone, and so are programs of the host's own namespace
that listen elsewhere (a mesh's node proxy).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from vllmwall.model import (
    Evidence,
    Label,
    LabelledListener,
    Listener,
    Process,
    Proto,
    Recognition,
    Role,
    Workload,
)
from vllmwall.recognize.definitions import WorkloadDefinition

_GUESSED = 0.6


@dataclass(frozen=True)
class _Way:
    """The listeners of one forwarder by name, and the workloads behind it."""

    listeners: tuple[Listener, ...]
    workloads: tuple[Workload, ...]
    namespace: int
    by: str

    def inner(self) -> list[tuple[Workload, LabelledListener]]:
        """The listeners that can be reached through it."""
        return [
            (workload, one)
            for workload in self.workloads
            for one in workload.listeners
            if one.listener.namespace == self.namespace and one.listener.proto is not Proto.UNIX
        ]


def with_forwarded(
    recognition: Recognition,
    processes: Mapping[int, Process],
    defined: Mapping[int, tuple[WorkloadDefinition, ...]],
) -> Recognition:
    """Give each workload the ports of the host that lead to it. ``defined``: definitions by pid."""
    leads_to = _namespaces(recognition, processes)
    if not leads_to:
        return recognition
    added: dict[Listener, tuple[Workload, Label]] = {}
    for way in _ways(recognition, processes, leads_to):
        added.update(_labelled(way, defined))
    return replace(
        recognition,
        workloads=tuple(_with(one, added) for one in recognition.workloads),
        unclaimed=tuple(one for one in recognition.unclaimed if one not in added),
    )


def _namespaces(recognition: Recognition, processes: Mapping[int, Process]) -> dict[int, int]:
    """The forwarders, and the namespaces that they lead to."""
    members = {pid for workload in recognition.workloads for pid in workload.pids}
    inhabited = {processes[pid].namespace for pid in members if pid in processes} - {0}
    children: dict[int, list[Process]] = {}
    for one in processes.values():
        if one.namespace in inhabited and one.pid not in members:
            children.setdefault(one.ppid, []).append(one)
    host = processes[1].namespace if 1 in processes else 0
    found: dict[int, int] = {}
    for listener in recognition.unclaimed:
        holders = [processes[pid] for pid in listener.pids if pid in processes]
        ends = {one.pid: _end(one, listener, children, inhabited - {host}) for one in holders}
        if not listener.is_loopback and all(ends.values()):
            found.update(ends)
    return found


def _end(
    holder: Process,
    listener: Listener,
    children: Mapping[int, list[Process]],
    inhabited: Collection[int],
) -> int:
    """The namespace of a workload that this holder of a listener leads to; 0: it leads nowhere."""
    alike = (
        one
        for one in children.get(holder.pid, ())
        if holder.exe and (one.exe, one.uid) == (holder.exe, holder.uid)
    )
    ends = (one.namespace for one in (holder, *alike))
    return next((end for end in ends if end in inhabited and end != listener.namespace), 0)


def _ways(
    recognition: Recognition, processes: Mapping[int, Process], leads_to: Mapping[int, int]
) -> Iterator[_Way]:
    for forwarder, namespace in leads_to.items():
        held = (one for one in recognition.unclaimed if forwarder in one.pids)
        listeners = tuple(one for one in held if one.namespace != namespace)
        workloads = tuple(
            one
            for one in recognition.workloads
            if any(processes[pid].namespace == namespace for pid in one.pids if pid in processes)
        )
        if listeners and workloads:
            yield _Way(listeners, workloads, namespace, processes[forwarder].comm)


def _labelled(
    way: _Way, defined: Mapping[int, tuple[WorkloadDefinition, ...]]
) -> Iterator[tuple[Listener, tuple[Workload, Label]]]:
    """A port leads to the same number inside. A port with another number may be named by a workload
    definition; otherwise, if one port and one API are left, they belong together."""
    inner = way.inner()
    same = {(one.listener.proto, one.listener.port): (workload, one) for workload, one in inner}
    outer = {(one.proto, one.port) for one in way.listeners}
    left = outer - same.keys()
    apis = [pair for key, pair in same.items() if _is_api(pair[1]) and key not in outer]
    for listener in way.listeners:
        key = listener.proto, listener.port
        if key in same:
            workload, found = same[key]
            yield listener, (workload, _behind(found.label, found.listener, way.by))
        elif named := _defined(way.workloads, listener, defined):
            yield listener, named
        elif len(left) == len(apis) == 1:
            workload, found = apis[0]
            label = _behind(found.label, found.listener, way.by)
            yield listener, (workload, replace(label, confidence=_GUESSED))
        else:
            yield listener, (way.workloads[0], _unknown(way.by))


def _defined(
    workloads: Sequence[Workload],
    listener: Listener,
    defined: Mapping[int, tuple[WorkloadDefinition, ...]],
) -> tuple[Workload, Label] | None:
    for workload in workloads:
        for definition in defined.get(workload.id.root_pid, ()):
            if listener.port in definition.api_ports:
                detail = f"workload {definition.name!r} names port {listener.port}"
                return workload, Label(Role.API, 0.99, (Evidence("defined", detail),))
    return None


def _is_api(one: LabelledListener) -> bool:
    return one.label.role is Role.API and not one.listener.is_loopback


def _behind(label: Label, listener: Listener, by: str) -> Label:
    where = f"{by} forwards it to {listener.proto.value} port {listener.port} inside"
    return replace(label, evidence=(*label.evidence, Evidence("forwarder", where)))


def _unknown(by: str) -> Label:
    where = f"{by} forwards it to an unknown port inside"
    return Label(Role.UNKNOWN, 0.3, (Evidence("forwarder", where),))


def _with(workload: Workload, added: Mapping[Listener, tuple[Workload, Label]]) -> Workload:
    mine: Sequence[LabelledListener] = [
        LabelledListener(listener, label)
        for listener, (owner, label) in added.items()
        if owner.id == workload.id
    ]
    return replace(workload, listeners=(*workload.listeners, *mine)) if mine else workload
