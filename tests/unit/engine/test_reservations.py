"""Reasons why a node is not "safe" although its walls are active."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from types import SimpleNamespace
from typing import cast

from vllmwall.engine.facts import Reservation
from vllmwall.engine.reconciler import Reconciler
from vllmwall.engine.reservations import reservations
from vllmwall.model import (
    Label,
    LabelledListener,
    Listener,
    Network,
    Node,
    Proto,
    Recognition,
    Role,
    Stack,
    Workload,
    WorkloadId,
)
from vllmwall.observe.namespaces import Namespaces
from vllmwall.observe.packet_paths import PacketPath


class _Paths(Namespaces):
    """Namespaces whose packets go these ways."""

    def __init__(self, paths: dict[int, PacketPath]) -> None:
        super().__init__()
        self._paths = paths


def job(namespace: int, address: str = "0.0.0.0") -> Workload:
    listener = Listener(namespace, Proto.TCP, 29500, ip_address(address))
    one = LabelledListener(listener, Label(Role.TCPSTORE, 1))
    return Workload(WorkloadId(1, 1), Stack.TORCH, f"job-{namespace}", frozenset({1}), (one,))


def found(
    paths: dict[int, PacketPath], *jobs: Workload, peers: tuple[Network, ...] = ()
) -> list[Reservation]:
    """The reservations of a node with these workloads."""
    node = SimpleNamespace(
        observer=SimpleNamespace(
            namespaces=_Paths(paths), unanswered=tuple, node=lambda: Node({}, ())
        ),
        waiting={},
        policy=SimpleNamespace(lockdown=False),
        home=frozenset(),
        peers=SimpleNamespace(networks=lambda: peers),
        recognition=Recognition(jobs, ()),
    )
    return list(reservations(cast("Reconciler", node)))


def test_a_workload_that_is_filtered_elsewhere_is_named() -> None:
    """One with another device, in another namespace, is not."""
    paths = {7: PacketPath(l3s=("eth0",)), 8: PacketPath(nat=True)}
    (one,) = found(paths, job(7), job(8))
    assert ("filtered-elsewhere", "net:7, job-7") == (one.kind, one.where)
    assert "eth0 is an ipvlan device in mode l3s" in one.line


def test_own_ipv6_packets_through_a_vrf_are_named_where_they_are_blocked() -> None:
    """Not for a listener of IPv4, on loopback, without a VRF, or where the address is a peer."""
    address = IPv6Address("2001:db8::1")
    paths = {7: PacketPath(in_vrfs=(address,)), 8: PacketPath()}
    (one,) = found(paths, job(7, "::"), job(8, "::"))
    assert ("own-packets-blocked", "net:7") == (one.kind, one.where)
    assert "`vllmwall peers add 2001:db8::1 --save`" in one.line
    for work in (job(7), job(7, "::1"), job(7, "::ffff:192.0.2.1"), job(8, "::")):
        assert [] == found(paths, work)
    assert [] == found(paths, job(7, "::"), peers=(ip_network("2001:db8::/64"),))
