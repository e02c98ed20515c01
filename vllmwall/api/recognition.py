"""The answer to `vllmwall recognize`: a recognition, with each role's audience by policy."""

from __future__ import annotations

from dataclasses import dataclass

from vllmwall.model import Evidence, LabelledListener, Listener, Policy, Recognition, Workload


@dataclass(frozen=True)
class UnclaimedListener:
    """A listener of no workload. ``addr`` is as the kernel wrote it; unix: the path."""

    proto: str
    addr: str
    port: int
    namespace: int
    pids: tuple[int, ...]


@dataclass(frozen=True)
class RecognizedListener(UnclaimedListener):
    """A listener of a workload; ``audience`` is who may connect by policy."""

    role: str
    audience: tuple[str, ...]
    confidence: float
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class RecognizedWorkload:
    """One workload. ``namespace`` None: it listens in none or in several."""

    stack: str
    name: str
    root_pid: int
    pids: tuple[int, ...]
    namespace: int | None
    listeners: tuple[RecognizedListener, ...]


@dataclass(frozen=True, kw_only=True)
class RecognitionAnswer:
    """The whole answer."""

    version: int = 1
    workloads: tuple[RecognizedWorkload, ...]
    unclaimed: tuple[UnclaimedListener, ...]


def recognition_answer(recognition: Recognition, policy: Policy) -> RecognitionAnswer:
    """The answer that a recognition makes, with each role's audience by ``policy``."""
    return RecognitionAnswer(
        workloads=tuple(_workload(one, policy) for one in recognition.workloads),
        unclaimed=tuple(map(_unclaimed, recognition.unclaimed)),
    )


def _workload(workload: Workload, policy: Policy) -> RecognizedWorkload:
    listeners = tuple(_listener(one, policy) for one in workload.listeners)
    namespaces = {one.namespace for one in listeners}
    return RecognizedWorkload(
        stack=workload.stack.value,
        name=workload.name,
        root_pid=workload.id.root_pid,
        pids=tuple(sorted(workload.pids)),
        namespace=namespaces.pop() if len(namespaces) == 1 else None,
        listeners=listeners,
    )


def _listener(labelled: LabelledListener, policy: Policy) -> RecognizedListener:
    listener, label = labelled.listener, labelled.label
    return RecognizedListener(
        proto=listener.proto.value,
        addr=_address(listener),
        port=listener.port,
        namespace=listener.namespace,
        pids=listener.pids,
        role=label.role.value,
        audience=policy.audience_of(label.role),
        confidence=label.confidence,
        evidence=label.evidence,
    )


def _unclaimed(listener: Listener) -> UnclaimedListener:
    address = _address(listener)
    return UnclaimedListener(
        listener.proto.value, address, listener.port, listener.namespace, listener.pids
    )


def _address(listener: Listener) -> str:
    return listener.address_text or listener.path
