"""Which entry refuses a connection: the rules' own order, without a kernel.

That the kernel agrees is shown in tests/kernel/enforce/test_sever_agrees.py.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from vllmwall.enforce.sever import Verdicts
from vllmwall.linux.connections import Connection
from vllmwall.model import Guard, Mode, Network, Proto, Wall, WallEntry

NODE, OTHER, PEER, STRANGER = "10.0.0.1", "10.0.0.7", "10.0.0.2", "203.0.113.9"
NODE6, PEER6, STRANGER6 = "fd00::1", "fd00::2", "2001:db8::9"
PORT = 29500


def coming(remote: str, local: str = NODE, port: int = PORT) -> Connection:
    """A connection to a port of ours."""
    return Connection(ip_address(local), port, ip_address(remote), 40000)


def entry(*audience: str, at: str | None = None, family: int = 4) -> WallEntry:
    """An entry for TCP at the port."""
    return WallEntry(family, Proto.TCP, PORT, audience, ip_address(at) if at else None)


def wall(*entries: WallEntry, peers: tuple[str, ...] = (PEER, PEER6), **groups: str) -> Wall:
    """A wall with these entries; every group is one network."""
    named: dict[str, tuple[Network, ...]] = {"peers": tuple(map(ip_network, peers))}
    named |= {name: (ip_network(network),) for name, network in groups.items()}
    return Wall(1, frozenset(entries), named)


def test_a_stranger_is_refused_and_a_peer_is_not() -> None:
    """The entry that refuses is named."""
    standing = wall(entry("peers"))
    assert entry("peers") == Verdicts(standing).refused(coming(STRANGER))
    assert Verdicts(standing).refused(coming(PEER)) is None


def test_a_port_without_an_entry_refuses_nobody() -> None:
    """An outbound connection has a local port too, and the kernel hands out no bound one."""
    assert Verdicts(wall(entry("peers"))).refused(coming(STRANGER, port=PORT + 1)) is None


def test_udp_entries_and_guards_say_nothing_about_connections() -> None:
    """A guard sees SYNs only."""
    datagrams = replace(entry("peers"), proto=Proto.UDP)
    standing = replace(wall(datagrams), guards=frozenset({Guard(1, 7, "/a")}))
    assert Verdicts(standing).refused(coming(STRANGER)) is None


def test_a_public_port_refuses_nobody() -> None:
    """An API is for all."""
    assert Verdicts(wall(entry("public"))).refused(coming(STRANGER)) is None


def test_node_lets_in_nobody_from_elsewhere() -> None:
    """Not even a peer: the host itself comes over lo."""
    assert entry("node") == Verdicts(wall(entry("node"))).refused(coming(PEER))


def test_what_is_on_this_host_at_both_ends_is_never_refused() -> None:
    """Its packets come over lo, which is accepted first."""
    assert Verdicts(wall(entry("node"))).refused(replace(coming(OTHER), here=True)) is None


def test_audit_refuses_nobody() -> None:
    """It counts."""
    standing = replace(wall(entry("peers")), mode=Mode.AUDIT)
    assert Verdicts(standing).refused(coming(STRANGER)) is None


@pytest.mark.parametrize(
    ("exact", "anywhere", "expected"),
    [("public", "peers", None), ("peers", "public", "peers"), ("node", "peers", "node")],
)
def test_the_exact_address_decides_before_the_wildcard(
    exact: str, anywhere: str, expected: str | None
) -> None:
    """Whichever of the two is the stricter."""
    standing = wall(entry(exact, at=NODE), entry(anywhere))
    refusing = Verdicts(standing).refused(coming(STRANGER))
    assert expected == (refusing and refusing.audience[0])
    elsewhere = Verdicts(standing).refused(coming(STRANGER, local=OTHER))
    assert (None if anywhere == "public" else entry(anywhere)) == elsewhere


def test_families_have_entries_of_their_own() -> None:
    """A rule for IPv6 never touches an IPv4 socket of the same port, and back."""
    assert Verdicts(wall(entry("peers", family=6))).refused(coming(STRANGER)) is None
    assert Verdicts(wall(entry("peers"))).refused(coming(STRANGER6, local=NODE6)) is None
    six = wall(entry("peers", family=6))
    assert entry("peers", family=6) == Verdicts(six).refused(coming(STRANGER6, local=NODE6))
    assert Verdicts(six).refused(coming(PEER6, local=NODE6)) is None


def test_every_name_of_an_audience_lets_its_networks_in() -> None:
    """A group beside the peers; another group counts for nothing."""
    standing = wall(entry("monitoring", "peers"), monitoring="203.0.113.8/31", b="0.0.0.0/0")
    assert Verdicts(standing).refused(coming(STRANGER)) is None
    assert Verdicts(standing).refused(coming(PEER)) is None
    assert Verdicts(standing).refused(coming("203.0.113.10")) is not None


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("203.0.113.8/31", "203.0.113.9", "203.0.113.10"),
        ("203.0.113.9/32", "203.0.113.9", "203.0.113.8"),
        ("203.0.112.0/23", "203.0.113.255", "203.0.114.0"),
        ("0.0.0.0/0", "203.0.113.9", None),
        ("2001:db8::8/125", "2001:db8::f", "2001:db8::10"),
        ("::/0", "2001:db8::9", None),
    ],
)
def test_a_network_ends_where_it_ends(network: str, inside: str, outside: str | None) -> None:
    """Every size, and the family it is of."""
    standing = wall(entry("peers"), entry("peers", family=6), peers=(network,))
    mine = NODE6 if ":" in network else NODE
    assert Verdicts(standing).refused(coming(inside, local=mine)) is None
    if outside:
        assert Verdicts(standing).refused(coming(outside, local=mine)) is not None
    other = coming(STRANGER, local=NODE) if ":" in network else coming(STRANGER6, local=NODE6)
    assert Verdicts(standing).refused(other) is not None


def test_a_network_inside_another_takes_nothing_from_it() -> None:
    """Whether or not somebody merged them."""
    standing = wall(entry("peers"), peers=("203.0.0.0/16", "203.0.113.0/24"))
    assert Verdicts(standing).refused(coming(STRANGER)) is None
    assert Verdicts(standing).refused(coming("203.0.7.1")) is None
