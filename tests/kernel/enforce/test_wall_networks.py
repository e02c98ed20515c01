"""Which addresses a CIDR lets in: both edges of each, from inside and from outside."""

from __future__ import annotations

import pytest

from tests.support.lab import Lab
from tests.support.walls import ask_all, everywhere, probe, wall
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.model import Proto

PORT = 29500
PEERS = [
    "198.51.100.16/28",
    "198.51.100.40/32",
    # one inside another, and two neighbours that do not make one CIDR
    "203.0.113.64/27",
    "203.0.113.72/29",
    "203.0.113.96/28",
    # two halves of one
    "198.51.100.128/26",
    "198.51.100.192/26",
    "2001:db8:1::10/124",
    "2001:db8:2::5/128",
    "2001:db8:3::/65",
    "2001:db8:3:0:8000::/66",
]
INSIDE = [
    *("198.51.100.16", "198.51.100.31", "198.51.100.40"),
    *("203.0.113.64", "203.0.113.72", "203.0.113.79", "203.0.113.80"),
    *("203.0.113.95", "203.0.113.96", "203.0.113.111"),
    *("198.51.100.128", "198.51.100.191", "198.51.100.192", "198.51.100.255"),
    *("2001:db8:1::10", "2001:db8:1::1f", "2001:db8:2::5"),
    *("2001:db8:3::", "2001:db8:3:0:7fff:ffff:ffff:ffff", "2001:db8:3:0:8000::"),
    "2001:db8:3:0:bfff:ffff:ffff:ffff",
]
OUTSIDE = [
    *("198.51.100.15", "198.51.100.32", "198.51.100.39", "198.51.100.41"),
    *("203.0.113.63", "203.0.113.112", "198.51.100.127"),
    *("2001:db8:1::f", "2001:db8:1::20", "2001:db8:2::4", "2001:db8:2::6"),
    *("2001:db8:2:ffff:ffff:ffff:ffff:ffff", "2001:db8:3:0:c000::"),
]


def _ask(lab: Lab, proto: Proto, sources: list[str]) -> dict[str, str]:
    def answer(source: str) -> str:
        target = lab.node.ipv6 if ":" in source else lab.node.ipv4
        return probe(lab.stranger, proto, target, PORT, source)

    return ask_all(sources, answer)


@pytest.mark.parametrize("proto", [Proto.TCP, Proto.UDP], ids=["tcp", "udp"])
def test_a_network_ends_where_it_ends(lab: Lab, backend: Nftables, proto: Proto) -> None:
    """The first and the last address of each network come in, those just beyond do not."""
    lab.stranger.add_address(*INSIDE, *OUTSIDE)
    lab.node.listen("::", PORT)
    lab.node.listen_udp("::", PORT)
    wanted = wall(lab.node, everywhere(PORT, "peers"), peers=PEERS)
    backend.apply(lab.node.path, wanted, None)
    assert backend.read_back(lab.node.path) == wanted
    assert _ask(lab, proto, INSIDE) == dict.fromkeys(INSIDE, "open")
    assert _ask(lab, proto, OUTSIDE) == dict.fromkeys(OUTSIDE, "timeout")


def test_networks_move_one_by_one(lab: Lab, backend: Nftables) -> None:
    """Growing a /28 to a /27 and shrinking it again is exact at both edges."""
    lab.stranger.add_address("198.51.100.16", "198.51.100.32", "198.51.100.47")
    lab.node.listen("::", PORT)
    entries = everywhere(PORT, "peers")
    narrow = wall(lab.node, entries, peers=["198.51.100.16/28", "192.0.2.2"])
    wide = wall(lab.node, entries, peers=["198.51.100.16/28", "198.51.100.32/28", "192.0.2.2"])
    steps = [(None, narrow, "timeout"), (narrow, wide, "open"), (wide, narrow, "timeout")]
    for standing, wanted, beyond in steps:
        backend.apply(lab.node.path, wanted, standing)
        assert backend.read_back(lab.node.path) == wanted
        assert _ask(lab, Proto.TCP, ["198.51.100.16", "198.51.100.32", "198.51.100.47"]) == {
            "198.51.100.16": "open",
            "198.51.100.32": beyond,
            "198.51.100.47": beyond,
        }


def test_everyone_may_be_a_peer_if_that_is_what_the_wall_says(lab: Lab, backend: Nftables) -> None:
    """0.0.0.0/0 and ::/0 are networks like others; whether they are wanted is for config."""
    lab.node.listen("::", PORT)
    wanted = wall(lab.node, everywhere(PORT, "peers"), peers=["0.0.0.0/0", "::/0"])
    backend.apply(lab.node.path, wanted, None)
    assert backend.read_back(lab.node.path) == wanted
    assert lab.stranger.connect(lab.node.ipv4, PORT) == "open"
    assert lab.stranger.connect(lab.node.ipv6, PORT) == "open"


def test_nobody_is_a_peer_while_the_list_is_empty(lab: Lab, backend: Nftables) -> None:
    """An empty list of peers closes; it does not open."""
    lab.node.listen("::", PORT)
    backend.apply(lab.node.path, wall(lab.node, everywhere(PORT, "peers"), peers=[]), None)
    assert probe(lab.peer, Proto.TCP, lab.node.ipv4, PORT) == "timeout"
    assert probe(lab.peer, Proto.TCP, lab.node.ipv6, PORT) == "timeout"


def test_an_ipv6_link_local_source_is_a_stranger(lab: Lab, backend: Nftables) -> None:
    """A neighbour that uses its fe80:: address is no peer because of the link it is on."""
    lab.node.listen("::", PORT)
    shown = lab.node.run(["ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "link"])
    target = shown.stdout.split()[3].split("/")[0] + "%eth0"

    def probed_by_neighbour() -> str:  # on the neighbour, where the name eth0 means its interface
        return lab.peer.call(lambda: probe(lab.peer, Proto.TCP, target, PORT))

    assert probed_by_neighbour() == "open"
    backend.apply(lab.node.path, wall(lab.node, everywhere(PORT, "peers")), None)
    assert probed_by_neighbour() == "timeout"
