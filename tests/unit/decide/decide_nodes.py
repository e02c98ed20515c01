"""Small nodes: workloads, listeners and policies in one line each."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from vllmwall.model import (
    PUBLIC,
    Label,
    LabelledListener,
    Listener,
    Network,
    Policy,
    Proto,
    Recognition,
    Role,
    Stack,
    Workload,
    WorkloadId,
)

HERE = 4026531840
PEER_NETWORKS = (ip_network("10.0.0.0/24"), ip_network("fd00::/64"))
DEFAULT = Policy({Role.API: (PUBLIC,)})


def listener(
    where: str, port: int = 8000, proto: Proto = Proto.TCP, uid: int = 1000, **more: object
) -> Listener:
    """A listener on an address, in our namespace unless told otherwise."""
    return Listener(more.pop("namespace", HERE), proto, port, ip_address(where), uid=uid, **more)  # type: ignore[arg-type]


def of_role(role: Role, one: Listener) -> LabelledListener:
    """A listener with its label."""
    return LabelledListener(one, Label(role, 1.0))


def workload(*listeners: LabelledListener, name: str = "vllm", pid: int = 100) -> Workload:
    """A workload with these listeners."""
    return Workload(WorkloadId(pid, 1), Stack.VLLM, name, frozenset({pid}), listeners)


def node(*workloads: Workload, unclaimed: tuple[Listener, ...] = ()) -> Recognition:
    """What was recognized on a node."""
    return Recognition(workloads, unclaimed)


def networks(*texts: str) -> tuple[Network, ...]:
    """Networks by their text."""
    return tuple(map(ip_network, texts))
