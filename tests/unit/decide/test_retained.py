"""Rules that a blind daemon retains from the active wall."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from vllmwall.decide.retained import with_retained
from vllmwall.model import Policy, Proto, Wall, WallEntry

PEERS = {"peers": (ip_network("192.0.2.2/32"),)}
STORE = WallEntry(4, Proto.TCP, 29500, ("peers",), note="tcpstore job")
API = WallEntry(4, Proto.TCP, 8000, ("public",), note="api job")
EMPTY = Wall(1, frozenset(), PEERS)


def test_active_rules_are_retained() -> None:
    """A daemon that does not see a rule's purpose does not remove it."""
    standing = replace(EMPTY, entries=frozenset({STORE, API}))
    assert {STORE, API} == with_retained(EMPTY, standing, Policy({})).entries
    assert with_retained(EMPTY, None, Policy({})) == EMPTY


def test_what_is_seen_counts() -> None:
    """One entry for one port and address: today's."""
    seen = replace(STORE, audience=("public",))
    elsewhere = replace(STORE, address=ip_address("192.0.2.1"))
    wall = replace(EMPTY, entries=frozenset({seen}))
    standing = replace(EMPTY, entries=frozenset({STORE, elsewhere}))
    assert {seen, elsewhere} == with_retained(wall, standing, Policy({})).entries


def test_nothing_that_the_configuration_forbids_is_kept() -> None:
    """A failsafe port is never closed; a group that is gone lets nobody in."""
    for_group = replace(STORE, port=9000, audience=("monitoring", "peers"))
    standing = replace(EMPTY, entries=frozenset({STORE, for_group}))
    policy = replace(Policy({}), failsafe=frozenset({(Proto.TCP, 29500)}))
    (left,) = with_retained(EMPTY, standing, policy).entries
    assert replace(for_group, audience=("peers",)) == left
