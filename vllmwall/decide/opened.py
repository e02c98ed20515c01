"""Ports that the operator names as the API of a workload. Pure.

It is the operator's word against weak evidence: a port that a library's fingerprint shows to be
internal stays closed, unless the operator insists.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vllmwall.model import (
    Evidence,
    Label,
    LabelledListener,
    Proto,
    Recognition,
    Role,
    Workload,
    WorkloadId,
)

KIND = "opened"
"""The kind of the evidence that made a listener an API."""
OPENABLE = frozenset({Role.API, Role.WEB, Role.GRPC, Role.METRICS, Role.UNKNOWN})


@dataclass(frozen=True)
class OpenedApi:
    """A TCP port that is the API of the workloads of this name. ``root`` is the one that had it
    when the command was given: its name may not be readable later. ``force``: whatever its role.
    """

    port: int
    workload: str
    force: bool = False
    root: WorkloadId | None = None

    def names(self, workload: Workload) -> bool:
        """Whether it is about this workload."""
        return workload.name == self.workload or workload.id == self.root


def with_opened(found: Recognition, opened: Iterable[OpenedApi]) -> Recognition:
    """The recognition in which these ports are APIs."""
    ports: dict[int, list[OpenedApi]] = {}
    for one in opened:
        ports.setdefault(one.port, []).append(one)
    if not ports:
        return found
    workloads = tuple(
        replace(each, listeners=tuple(_opened(each, one, ports) for one in each.listeners))
        for each in found.workloads
    )
    return replace(found, workloads=workloads)


def is_opened(one: LabelledListener) -> bool:
    """Whether the operator's word made it an API."""
    return any(each.kind == KIND for each in one.label.evidence)


def _opened(
    workload: Workload, one: LabelledListener, ports: dict[int, list[OpenedApi]]
) -> LabelledListener:
    listener, label = one.listener, one.label
    if listener.proto is not Proto.TCP or listener.is_loopback:
        return one
    named = [each for each in ports.get(listener.port, ()) if each.names(workload)]
    if not any(each.force or label.role in OPENABLE for each in named):
        return one
    why = Evidence(KIND, f"the operator opened port {listener.port} of {workload.name}")
    return replace(one, label=Label(Role.API, 1.0, (why, *label.evidence)))
