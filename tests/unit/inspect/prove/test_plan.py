"""What `vllmwall prove` probes, from where, and what it expects."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from tests.unit.inspect.prove.prove_nodes import (
    NAMESPACE,
    PEER,
    STRANGER,
    listening,
    place,
    shown,
    status,
)
from vllmwall.decide.walls import FAILSAFE
from vllmwall.inspect.prove.plan import (
    Expected,
    NamespaceView,
    Source,
    Way,
    controls_of,
    failsafe_targets,
    free_address,
    probes_of,
    targets_of,
)
from vllmwall.model import Listener, Network, Proto

NETWORKS: dict[str, list[Network]] = {
    "peers": [ip_network("10.0.0.2/32")],
    "monitoring": [ip_network("10.9.0.0/16")],
}


def destinations(addr: str, where: NamespaceView) -> list[str]:
    found, _ = targets_of(status(shown(addr)), NAMESPACE, where)
    return [str(one.address) for one in found]


@pytest.mark.parametrize(
    ("addr", "v6only", "expected"),
    [
        ("0.0.0.0", False, ["10.0.0.1"]),
        ("::", False, ["10.0.0.1", "fd00::1"]),
        ("::", True, ["fd00::1"]),
        ("10.0.0.9", False, ["10.0.0.9"]),
        ("::ffff:10.0.0.9", False, ["10.0.0.9"]),
        ("127.0.0.1", False, []),
        ("10.0.0.77", False, []),
    ],
)
def test_a_listener_is_tried_where_packets_find_it(
    addr: str, v6only: bool, expected: list[str]
) -> None:
    """Once a family; not at loopback, nor at an address that the namespace does not have."""
    assert expected == destinations(addr, place(listening(addr, v6only=v6only)))


def test_a_wildcard_is_not_tried_at_the_address_of_another_listener() -> None:
    """The kernel hands such a packet to the exact one."""
    where = place(listening("0.0.0.0"), listening("10.0.0.1"))
    assert ["10.0.0.9"] == destinations("0.0.0.0", where)
    assert ["10.0.0.1"] == destinations("10.0.0.1", where)


def test_ipv4_is_not_tried_for_a_dual_listener_beside_one_of_its_own() -> None:
    """The kernel hands IPv4 to the IPv4 wildcard."""
    where = place(listening("::"), listening("0.0.0.0"))
    assert ["fd00::1"] == destinations("::", where)


def test_what_is_not_tried_is_named_with_the_reason() -> None:
    """Nobody shall take silence for a proof."""
    unix = shown("", 0, proto="unix", path="/run/x", reason="unix socket")
    other = shown("10.0.0.1", namespace=8)
    found, skipped = targets_of(status(shown("127.0.0.1"), unix, other), NAMESPACE, place())
    assert [] == found
    assert ["tcp 127.0.0.1:29500", "unix /run/x"] == [one.listener for one in skipped]
    assert "unix socket" == skipped[1].reason


@pytest.mark.parametrize(
    ("audience", "source", "expected"),
    [
        (["public"], STRANGER, Expected.OPEN),
        (["peers"], STRANGER, Expected.CLOSED),
        (["peers"], PEER, Expected.OPEN),
        (["node"], PEER, Expected.CLOSED),
        (["monitoring"], PEER, Expected.CLOSED),
        (["monitoring"], Source("peer", ip_address("10.9.1.1")), Expected.OPEN),
        (["monitoring", "peers"], PEER, Expected.OPEN),
        (["unheard of"], PEER, Expected.CLOSED),
    ],
)
def test_expected_is_what_the_policy_says(
    audience: list[str], source: Source, expected: Expected
) -> None:
    """Not what stands in the table."""
    found, _ = targets_of(status(shown("10.0.0.1", audience=audience)), NAMESPACE, place())
    assert [expected] == [one.expected for one in probes_of(found, [source], NETWORKS)]


def test_only_an_api_is_connected_to_and_udp_gets_what_nobody_delivers() -> None:
    """The facts name what a bare connect does to TensorPipe and NCCL."""
    listeners = (
        shown("10.0.0.1", 1, role="api"),
        shown("10.0.0.1", 2, role="metrics"),
        shown("10.0.0.1", 3, role="tensorpipe"),
        shown("10.0.0.1", 4, role="api", proto="udp"),
    )
    found, _ = targets_of(status(*listeners), NAMESPACE, place())
    ways = [one.way for one in probes_of(found, [STRANGER], NETWORKS)]
    assert [Way.CONNECT, Way.SYN, Way.SYN, Way.DATAGRAM] == ways


def test_the_strictest_counts_where_listeners_share_a_port() -> None:
    """As in the wall."""
    public = shown("10.0.0.1", audience=["public"])
    for pair in ((public, shown("10.0.0.1")), (shown("10.0.0.1"), public)):
        found, _ = targets_of(status(*pair), NAMESPACE, place())
        assert [Expected.CLOSED] == [one.expected for one in probes_of(found, [STRANGER], NETWORKS)]


def test_a_source_tries_its_own_family_only() -> None:
    found, _ = targets_of(status(shown("::")), NAMESPACE, place(listening("::")))
    probe = probes_of(found, [STRANGER], NETWORKS)
    assert ["10.0.0.1"] == [str(one.target.address) for one in probe]


def test_a_failsafe_port_is_tried_where_something_listens_and_no_workload_is_tried_anyway() -> None:
    ssh = (Proto.TCP, 22)
    where = place(listening("0.0.0.0", 22), listening("127.0.0.1", 23))
    found = failsafe_targets({ssh, (Proto.TCP, 23)}, [], where)
    assert [("10.0.0.1", 22)] == [(str(one.address), one.port) for one in found]
    assert [] == failsafe_targets({ssh}, found, where)
    assert [Expected.NOT_OURS] == [one.expected for one in probes_of(found, [STRANGER], NETWORKS)]
    ours, _ = targets_of(status(shown("10.0.0.1", 22, reason=FAILSAFE)), NAMESPACE, place())
    assert [Expected.NOT_OURS] == [one.expected for one in probes_of(ours, [STRANGER], NETWORKS)]


def test_there_is_a_control_at_a_port_without_listener_for_each_pair_of_addresses() -> None:
    where = place(listening("0.0.0.0", 1), listening("0.0.0.0", 2), listening("10.0.0.9", 5))
    found, _ = targets_of(
        status(shown("0.0.0.0", 1), shown("0.0.0.0", 2), shown("10.0.0.9", 5)), NAMESPACE, where
    )
    controls = controls_of(probes_of(found, [STRANGER, PEER], NETWORKS), where)
    assert {3} == {one.target.port for one in controls}
    assert 4 == len({(one.source, one.target.address) for one in controls}) == len(controls)


def test_the_strangers_address_is_nobodys() -> None:
    """Not a peer's, not on a route; a default route leads everywhere and does not count."""
    taken = [ip_network("0.0.0.0/0"), ip_network("0.0.0.0/1"), ip_network("::/0")]
    assert ip_address("198.51.100.77") == free_address(4, taken)
    taken.append(ip_network("198.51.100.77/32"))
    assert ip_address("198.51.100.78") == free_address(4, taken)
    taken.append(ip_network("198.51.100.0/24"))
    assert ip_address("203.0.113.77") == free_address(4, taken)
    taken += [ip_network("203.0.113.0/24"), ip_network("192.0.2.0/25")]
    assert ip_address("192.0.2.177") == free_address(4, taken)
    taken.append(ip_network("192.0.2.0/24"))
    assert free_address(4, taken) is None
    assert ip_address("2001:db8::4d") == free_address(6, taken)


def test_a_listener_that_is_not_there_any_more_is_known_as_gone() -> None:
    where = place(listening("0.0.0.0"), Listener(NAMESPACE, Proto.UDP, 5, ip_address("::")))
    assert where.is_listening(Proto.TCP, "0.0.0.0", 29500)
    assert not where.is_listening(Proto.UDP, "0.0.0.0", 29500)
    assert not where.is_listening(Proto.UDP, "0.0.0.0", 5)
