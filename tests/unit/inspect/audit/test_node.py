"""What of the node matters: which networks it is in, what is public, which proxies there are."""

from __future__ import annotations

import os
from ipaddress import ip_address

import pytest

from tests.unit.inspect.audit.audit_cases import place
from vllmwall.inspect.audit.collect.node import (
    addresses,
    networks,
    proxies,
    public_address,
    rdma_devices,
)
from vllmwall.model import Listener, Node, Process, Proto

OWN = {
    "eth0": (ip_address("10.0.0.1"), ip_address("1.2.3.4")),
    "ib0": (ip_address("10.1.0.1"),),
    "docker0": (ip_address("172.17.0.1"),),
    "veth1a": (ip_address("172.18.0.1"),),
    "lo": (),
    "eth1": (),
}


def nginx(address: str, namespace: int = 7, comm: str = "nginx") -> Node:
    listener = Listener(namespace, Proto.TCP, 443, ip_address(address), pids=(5, 6))
    return Node({5: Process(5, 1, comm), 6: Process(6, 5, comm)}, (listener,))


def test_only_networks_that_reach_other_hosts_count() -> None:
    """A bridge of containers is not a second network, and an interface without address none."""
    assert networks(OWN) == ("eth0 (10.0.0.1)", "ib0 (10.1.0.1)")


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        ("0.0.0.0", "1.2.3.4"),
        ("::", "1.2.3.4"),
        ("1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", ""),
        ("127.0.0.1", ""),
    ],
)
def test_an_api_is_public_by_what_it_is_bound_to(bound: str, expected: str) -> None:
    """All addresses include the public one; a private one does not."""
    assert public_address([place(bound)], OWN) == expected


def test_a_node_without_a_public_address_has_no_public_api() -> None:
    """And IPv4 sockets are not reached over IPv6."""
    assert public_address([place("0.0.0.0")], {"eth0": (ip_address("10.0.0.1"),)}) == ""
    six = {"eth0": (ip_address("2a00:1450::1"),)}
    assert public_address([place("0.0.0.0")], six) == ""
    assert public_address([place("::")], six) == "2a00:1450::1"


def test_a_reverse_proxy_is_told_once() -> None:
    """However many workers share its socket."""
    assert proxies(nginx("0.0.0.0"), 7) == ("nginx on port 443",)


@pytest.mark.parametrize(
    "node", [nginx("127.0.0.1"), nginx("0.0.0.0", namespace=8), nginx("0.0.0.0", comm="sshd")]
)
def test_what_is_on_loopback_elsewhere_or_no_proxy_is_none(node: Node) -> None:
    """It does not stand between clients and this API."""
    assert proxies(node, 7) == ()


def test_addresses_of_this_namespace_are_read() -> None:
    """Loopback and link-local ones are left out."""
    found = [one for each in addresses(os.getpid()).values() for one in each]
    assert not [one for one in found if one.is_loopback]
    assert not [one for one in found if one.is_link_local]
    assert addresses(2**22 + 1) == {}


def test_a_process_without_rdma_has_none() -> None:
    """Also one that is gone."""
    assert rdma_devices([os.getpid(), 2**22 + 1]) == ()
