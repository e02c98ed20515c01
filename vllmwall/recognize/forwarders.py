"""Ports of the host that rootless Podman forwards to a workload in a container. Pure.

rootlessport listens in the host's network namespace; a child of it connects to the container's
own address from within, over its lo. The wall in there does not see the client's address, so the
host's port gets the role of the one behind it. Seen with Podman 4.3 and slirp4netns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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

_FORWARDER = "rootlessport"
_GUESSED = 0.6


@dataclass(frozen=True)
class _Way:
    """The listeners of one forwarder, and the workloads behind it."""

    listeners: tuple[Listener, ...]
    workloads: tuple[Workload, ...]
    namespace: int

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
    leads_to = _namespaces(processes)
    if not leads_to:
        return recognition
    added: dict[Listener, tuple[Workload, Label]] = {}
    for way in _ways(recognition, processes, leads_to):
        added.update(_labelled(way, defined))
    return Recognition(
        tuple(_with(one, added) for one in recognition.workloads),
        tuple(one for one in recognition.unclaimed if one not in added),
    )


def _namespaces(processes: Mapping[int, Process]) -> dict[int, int]:
    """The forwarders, and the namespaces in which their children are."""
    named = {pid for pid, one in processes.items() if one.exe.endswith(f"/{_FORWARDER}")}
    return {
        processes[pid].ppid: processes[pid].namespace
        for pid in named
        if processes[pid].ppid in named
    }


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
            yield _Way(listeners, workloads, namespace)


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
            yield listener, (workload, _behind(found.label, found.listener))
        elif named := _defined(way.workloads, listener, defined):
            yield listener, named
        elif len(left) == len(apis) == 1:
            workload, found = apis[0]
            label = _behind(found.label, found.listener)
            yield listener, (workload, replace(label, confidence=_GUESSED))
        else:
            yield listener, (way.workloads[0], _unknown())


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


def _behind(label: Label, listener: Listener) -> Label:
    where = f"{_FORWARDER} forwards it to {listener.proto.value} port {listener.port} inside"
    return replace(label, evidence=(*label.evidence, Evidence("forwarder", where)))


def _unknown() -> Label:
    where = f"{_FORWARDER} forwards it to an unknown port inside"
    return Label(Role.UNKNOWN, 0.3, (Evidence("forwarder", where),))


def _with(workload: Workload, added: Mapping[Listener, tuple[Workload, Label]]) -> Workload:
    mine: Sequence[LabelledListener] = [
        LabelledListener(listener, label)
        for listener, (owner, label) in added.items()
        if owner.id == workload.id
    ]
    return replace(workload, listeners=(*workload.listeners, *mine)) if mine else workload
