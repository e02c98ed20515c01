"""Walls that change: what is cut, what is counted, what stays."""

from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.support.lab import Lab
from tests.support.walls import SILENCE, entry, everywhere, probe, wall
from vllmwall.enforce.backend import Counters, Refusal
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.model import Mode, Proto

PORT = 29500


def _echoes(connection: socket.socket) -> bool:
    connection.settimeout(SILENCE)
    try:
        connection.sendall(b"still there?")
        return connection.recv(64) == b"still there?"
    except TimeoutError:
        return False


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_an_established_stranger_is_cut(lab: Lab, backend: Nftables, address: str) -> None:
    """A connection that a stranger opened before the wall was active carries nothing after."""
    lab.node.listen("::", PORT)
    with lab.stranger.dial(address, PORT) as strange, lab.peer.dial(address, PORT) as friendly:
        assert _echoes(strange)
        assert _echoes(friendly)
        backend.apply(lab.node.path, wall(lab.node, everywhere(PORT, "peers")), None)
        assert not _echoes(strange)
        assert _echoes(friendly)


def test_a_peer_that_is_removed_is_cut(lab: Lab, backend: Nftables) -> None:
    """Taking a network off the list ends its established connections too."""
    lab.node.listen("::", PORT)
    before = wall(lab.node, everywhere(PORT, "peers"))
    backend.apply(lab.node.path, before, None)
    with lab.peer.dial(lab.node.ipv4, PORT) as connection:
        assert _echoes(connection)
        backend.apply(lab.node.path, wall(lab.node, before.entries, peers=[]), before)
        assert not _echoes(connection)


def test_peers_pass_by_no_port_that_is_not_theirs(lab: Lab, backend: Nftables) -> None:
    """They are let in before ports are looked up while every audience has peers in it, only."""
    path, (home, peer) = lab.node.path, (lab.node.ipv4, lab.peer)
    for port in (PORT, 9001):
        lab.node.listen("::", port)
    open_to_all = wall(lab.node, [*everywhere(PORT, "peers"), *everywhere(9001, "peers")])
    for stricter in ("node", "monitoring"):
        entries = [*everywhere(PORT, "peers"), *everywhere(9001, stricter)]
        strict = wall(lab.node, entries, groups={"monitoring": ["198.51.100.20"]})
        backend.apply(path, open_to_all, None)
        assert ("open", "open") == (peer.connect(home, PORT), peer.connect(home, 9001))
        with peer.dial(home, 9001) as connection:
            backend.apply(path, strict, open_to_all)
            assert strict == backend.read_back(path)
            assert ("open", "timeout") == (peer.connect(home, PORT), peer.connect(home, 9001))
            assert not _echoes(connection)
        backend.apply(path, open_to_all, strict)
        assert open_to_all == backend.read_back(path)
        assert "open" == peer.connect(home, 9001)


def test_a_peer_that_comes_reaches_what_a_peer_reaches(lab: Lab, backend: Nftables) -> None:
    """And not one port of an audience without peers."""
    for port in (PORT, 9001):
        lab.node.listen("::", port)
    entries = [*everywhere(PORT, "peers"), *everywhere(9001, "node")]
    before, after = wall(lab.node, entries, peers=[]), wall(lab.node, entries)
    backend.apply(lab.node.path, before, None)
    assert "timeout" == lab.peer.connect(lab.node.ipv4, PORT)
    backend.apply(lab.node.path, after, before)
    found = [lab.peer.connect(lab.node.ipv4, port) for port in (PORT, 9001)]
    assert ["open", "timeout"] == found
    assert after == backend.read_back(lab.node.path)


def test_removing_the_wall_lets_everybody_in_again(lab: Lab, backend: Nftables) -> None:
    """After `remove` nothing of ours is in anybody's way."""
    lab.node.listen("::", PORT)
    backend.apply(lab.node.path, wall(lab.node, everywhere(PORT, "peers")), None)
    assert probe(lab.stranger, Proto.TCP, lab.node.ipv6, PORT) == "timeout"
    assert backend.remove(lab.node.path)
    assert probe(lab.stranger, Proto.TCP, lab.node.ipv6, PORT) == "open"


def test_audit_drops_nothing_and_counts(lab: Lab, backend: Nftables) -> None:
    """In audit mode strangers come through, and we know who they were."""
    lab.node.listen_udp("::", PORT)
    audit = wall(lab.node, everywhere(PORT, "peers"), mode=Mode.AUDIT)
    backend.apply(lab.node.path, audit, None)
    assert probe(lab.peer, Proto.UDP, lab.node.ipv4, PORT) == "open"
    assert backend.counters(lab.node.path).packets == 0
    assert probe(lab.stranger, Proto.UDP, lab.node.ipv4, PORT) == "open"
    seen = backend.counters(lab.node.path)
    stranger = Refusal(ip_address(lab.stranger.ipv4), Proto.UDP, PORT, 1, 33)
    assert seen == Counters(1, 33, (stranger,))


def test_the_mode_can_change_in_place(lab: Lab, backend: Nftables) -> None:
    """From audit to enforce and back, on an active wall."""
    lab.node.listen("::", PORT)
    audit = wall(lab.node, everywhere(PORT, "peers"), mode=Mode.AUDIT)
    enforce = replace(audit, mode=Mode.ENFORCE)
    steps = [(None, audit, "open"), (audit, enforce, "timeout"), (enforce, audit, "open")]
    for standing, wanted, outcome in steps:
        backend.apply(lab.node.path, wanted, standing)
        assert backend.read_back(lab.node.path) == wanted
        assert probe(lab.stranger, Proto.TCP, lab.node.ipv4, PORT) == outcome


def test_refusals_are_counted_by_source_and_port(lab: Lab, backend: Nftables) -> None:
    """One datagram refused is one packet of 33 bytes from that source to that port."""
    backend.apply(lab.node.path, wall(lab.node, everywhere(PORT, "peers")), None)
    assert probe(lab.stranger, Proto.UDP, lab.node.ipv4, PORT) == "timeout"
    assert probe(lab.stranger, Proto.UDP, lab.node.ipv6, PORT) == "timeout"
    seen = backend.counters(lab.node.path)
    assert (seen.packets, seen.bytes) == (2, 33 + 53)
    assert set(seen.refusals) == {
        Refusal(ip_address(lab.stranger.ipv4), Proto.UDP, PORT, 1, 33),
        Refusal(ip_address(lab.stranger.ipv6), Proto.UDP, PORT, 1, 53),
    }


def test_a_namespace_without_a_wall_refuses_nothing(lab: Lab, backend: Nftables) -> None:
    """Counters of a wall that is not there are zero, not an error."""
    assert backend.counters(lab.node.path).packets == 0


def test_a_change_keeps_what_was_counted(lab: Lab, backend: Nftables) -> None:
    """A new listener changes elements only: counters go on, refused sources are remembered."""
    one = wall(lab.node, everywhere(PORT, "peers"))
    backend.apply(lab.node.path, one, None)
    assert probe(lab.stranger, Proto.UDP, lab.node.ipv4, PORT) == "timeout"
    two = wall(lab.node, [*one.entries, *everywhere(PORT + 1, "peers")])
    backend.apply(lab.node.path, two, one)
    assert backend.read_back(lab.node.path) == two
    assert backend.counters(lab.node.path).packets == 1


def test_a_change_that_does_not_fit_becomes_a_replacement(lab: Lab, backend: Nftables) -> None:
    """Where the table is not what we took it for, the wall is applied all the same."""
    believed = wall(lab.node, [entry(1000, "peers"), entry(PORT, "peers")])
    wanted = wall(lab.node, [entry(PORT, "peers"), entry(2000, "node")])
    backend.apply(lab.node.path, wanted, believed)  # there is no table at all
    assert backend.read_back(lab.node.path) == wanted
    backend.apply(lab.node.path, wall(lab.node, [entry(3000, "peers")]), None)
    backend.apply(lab.node.path, wanted, believed)
    assert backend.read_back(lab.node.path) == wanted
