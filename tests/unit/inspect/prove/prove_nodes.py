"""Places, statuses and probes for tests of `vllmwall.inspect.prove`."""

from __future__ import annotations

from ipaddress import ip_address

from tests.support.answers import status_json
from tests.support.nodes import facts
from vllmwall.api.status_answer import Status
from vllmwall.inspect.prove.plan import Expected, NamespaceView, Probe, Source, Target, Way
from vllmwall.linux.wire import decode
from vllmwall.model import Listener, Proto

NAMESPACE = 7
STRANGER = Source("stranger", ip_address("198.51.100.77"))
PEER = Source("peer", ip_address("10.0.0.2"))


def listening(address: str, port: int = 29500, *, v6only: bool = False) -> Listener:
    """A TCP listener."""
    return Listener(NAMESPACE, Proto.TCP, port, ip_address(address), v6only=v6only)


def place(*listeners: Listener, addresses: str = "10.0.0.1 10.0.0.9 fd00::1") -> NamespaceView:
    """A namespace with these addresses and listeners."""
    return NamespaceView(tuple(map(ip_address, addresses.split())), listeners)


def status(*listeners: dict[str, object]) -> Status:
    """A status with one workload."""
    answer = status_json(facts())
    [workload] = answer["workloads"]
    made = {**workload, "name": "job", "root_pid": 42, "listeners": list(listeners)}
    return decode(Status, {**answer, "workloads": [made]})


def shown(addr: str, port: int = 29500, **others: object) -> dict[str, object]:
    """A listener as `status` has it."""
    usual = {"proto": "tcp", "path": "", "namespace": NAMESPACE, "role": "gloo", "reason": ""}
    usual |= {"confidence": 1.0, "evidence": [], "rule": "active", "pids": []}
    return {**usual, "addr": addr, "port": port, "audience": ["peers"], **others}


def attempt(
    expected: Expected = Expected.CLOSED,
    way: Way = Way.SYN,
    source: Source = STRANGER,
    port: int = 29500,
) -> Probe:
    """One try."""
    proto = Proto.UDP if way is Way.DATAGRAM else Proto.TCP
    target = Target(ip_address("10.0.0.1"), proto, port, "0.0.0.0", "gloo", "job", 42)
    return Probe(source, target, way, expected)
