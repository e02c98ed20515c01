"""A recognition as JSON for machines: `vllmwall recognize FILE --json`.

Imports nothing of ours but the model.
"""

from __future__ import annotations

from vllmwall.api.typed import TypedDict
from vllmwall.model import LabelledListener, Listener, Policy, Recognition, Workload


class EvidenceOut(TypedDict):
    """One reason for a role."""

    kind: str
    detail: str


class UnclaimedOut(TypedDict):
    """A listener of no workload. ``addr`` is as the kernel wrote it; unix: the path."""

    proto: str
    addr: str
    port: int
    namespace: int
    pids: list[int]


class ListenerOut(UnclaimedOut):
    """A listener of a workload; ``audience`` is who may connect by policy."""

    role: str
    audience: list[str]
    confidence: float
    evidence: list[EvidenceOut]


class WorkloadOut(TypedDict):
    """One workload."""

    stack: str
    name: str
    root_pid: int
    pids: list[int]
    namespace: int | None
    listeners: list[ListenerOut]


class RecognitionOut(TypedDict):
    """The whole answer."""

    version: int
    workloads: list[WorkloadOut]
    unclaimed: list[UnclaimedOut]


def recognition_json(recognition: Recognition, policy: Policy) -> RecognitionOut:
    """The recognition in plain values, with each role's audience by ``policy``."""
    return RecognitionOut(
        version=1,
        workloads=[_workload(one, policy) for one in recognition.workloads],
        unclaimed=[_place(one) for one in recognition.unclaimed],
    )


def _workload(workload: Workload, policy: Policy) -> WorkloadOut:
    listeners = [_listener(one, policy) for one in workload.listeners]
    namespaces = {one["namespace"] for one in listeners}
    return WorkloadOut(
        stack=workload.stack.value,
        name=workload.name,
        root_pid=workload.id.root_pid,
        pids=sorted(workload.pids),
        namespace=namespaces.pop() if len(namespaces) == 1 else None,
        listeners=listeners,
    )


def _listener(labelled: LabelledListener, policy: Policy) -> ListenerOut:
    label = labelled.label
    return ListenerOut(
        **_place(labelled.listener),
        role=label.role.value,
        audience=list(policy.audience_of(label.role)),
        confidence=label.confidence,
        evidence=[EvidenceOut(kind=one.kind, detail=one.detail) for one in label.evidence],
    )


def _place(listener: Listener) -> UnclaimedOut:
    return UnclaimedOut(
        proto=listener.proto.value,
        addr=listener.address_text or listener.path,
        port=listener.port,
        namespace=listener.namespace,
        pids=list(listener.pids),
    )
