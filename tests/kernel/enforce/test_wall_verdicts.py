"""The sources that reach each listener: real packets, every kind of bind, every audience."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import pytest

from tests.support.lab import Lab
from tests.support.walls import ask_all, entry, everywhere, probe, wall
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.model import Proto, WallEntry

V4, V6, MONITOR = "192.0.2.1", "2001:db8::1", ("198.51.100.20", "2001:db8:50::20")


class Bind(NamedTuple):
    """A way to bind, where packets reach it from outside, and its entries in the wall."""

    address: str
    v6only: bool
    reached_at: tuple[str, ...]
    families: tuple[int, ...]
    exact: str | None = None


BINDS = {
    "any IPv4": Bind("0.0.0.0", False, (V4,), (4,)),
    "any, both families": Bind("::", False, (V4, V6), (4, 6)),
    "any IPv6 only": Bind("::", True, (V6,), (6,)),
    "one IPv4": Bind(V4, False, (V4,), (4,), V4),
    "one IPv6": Bind(V6, False, (V6,), (6,), V6),
    "one IPv4, mapped": Bind(f"::ffff:{V4}", False, (V4,), (4,), V4),
}
AUDIENCES = [("public",), ("peers",), ("node",), ("monitoring",), ("monitoring", "peers")]
LETS_IN = {
    "node": {"public", "peers", "node", "monitoring"},
    "peer": {"public", "peers"},
    "monitor": {"public", "monitoring"},
    "stranger": {"public"},
}
PORTS = {each: 20000 + n for n, each in enumerate(product(BINDS, AUDIENCES))}


class Try(NamedTuple):
    """One attempt of one host at one listener."""

    host: str
    bind: str
    audience: tuple[str, ...]
    proto: Proto
    address: str


TRIES = [
    Try(host, name, audience, proto, address)
    for host, name, audience, proto in product(LETS_IN, BINDS, AUDIENCES, (Proto.TCP, Proto.UDP))
    for address in BINDS[name].reached_at
]


def _entries() -> Iterator[WallEntry]:
    for (name, audience), port in PORTS.items():
        bind = BINDS[name]
        for proto, family in product((Proto.TCP, Proto.UDP), bind.families):
            yield entry(port, *audience, proto=proto, family=family, at=bind.exact)


@pytest.fixture(scope="module")
def outcomes(backend: Nftables) -> Iterator[dict[Try, str]]:
    """What every host got at every listener, behind one wall."""
    with Lab() as lab:
        hosts = {host.name: host for host in (lab.node, lab.peer, lab.stranger)}
        hosts["monitor"] = lab.host("monitor", *MONITOR)
        for (name, _), port in PORTS.items():
            lab.node.listen(BINDS[name].address, port, v6only=BINDS[name].v6only)
            lab.node.listen_udp(BINDS[name].address, port, v6only=BINDS[name].v6only)
        wanted = wall(lab.node, _entries(), groups={"monitoring": MONITOR})
        backend.apply(lab.node.path, wanted, None)
        yield ask_all(
            TRIES,
            lambda t: probe(hosts[t.host], t.proto, t.address, PORTS[t.bind, t.audience]),
        )


@pytest.mark.parametrize("audience", AUDIENCES, ids=",".join)
@pytest.mark.parametrize("bind", BINDS)
@pytest.mark.parametrize("host", LETS_IN)
def test_only_the_audience_gets_through(
    outcomes: dict[Try, str], host: str, bind: str, audience: tuple[str, ...]
) -> None:
    """A listener answers its audience and the host itself, and is silent to all others."""
    expected = "open" if LETS_IN[host] & set(audience) else "timeout"
    mine = {t: o for t, o in outcomes.items() if t[:3] == (host, bind, audience)}
    assert mine == dict.fromkeys(mine, expected)
    assert len(mine) == 2 * len(BINDS[bind].reached_at)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_loopback_is_left_alone(lab: Lab, backend: Nftables, address: str) -> None:
    """The host talks to itself over lo, even to a port that the wall closes to everyone."""
    lab.node.listen(address, 7000)
    lab.node.listen_udp(address, 7000)
    backend.apply(lab.node.path, wall(lab.node, everywhere(7000, "node")), None)
    assert probe(lab.node, Proto.TCP, address, 7000) == "open"
    assert probe(lab.node, Proto.UDP, address, 7000) == "open"


def test_an_ipv6_only_rule_spares_the_ipv4_listener_beside_it(lab: Lab, backend: Nftables) -> None:
    """A workload on [::] with v6only and somebody else's 0.0.0.0 may share a port number."""
    lab.node.listen("::", 8000, v6only=True)
    lab.node.listen("0.0.0.0", 8000)
    lab.node.listen("::", 8001, v6only=True)
    lab.node.listen("0.0.0.0", 8001)
    entries = [entry(8000, "peers", family=6), entry(8001, "peers", family=4)]
    backend.apply(lab.node.path, wall(lab.node, entries), None)
    doors = [(V4, 8000), (V6, 8000), (V4, 8001), (V6, 8001)]
    assert ask_all(doors, lambda door: probe(lab.stranger, Proto.TCP, *door)) == {
        (V4, 8000): "open",
        (V6, 8000): "timeout",
        (V4, 8001): "timeout",
        (V6, 8001): "open",
    }


def test_a_rule_for_one_address_spares_the_others(lab: Lab, backend: Nftables) -> None:
    """Another process on another address of the same port keeps its visitors."""
    lab.node.add_address("192.0.2.77")
    lab.node.listen(V4, 8000)
    lab.node.listen("192.0.2.77", 8000)
    backend.apply(lab.node.path, wall(lab.node, [entry(8000, "peers", at=V4)]), None)
    assert lab.stranger.connect(V4, 8000) == "timeout"
    assert lab.stranger.connect("192.0.2.77", 8000) == "open"


def test_the_exact_address_decides_before_the_wildcard(lab: Lab, backend: Nftables) -> None:
    """The kernel gives a packet to the listener on its exact address; so does the wall."""
    lab.node.add_address("192.0.2.77")
    public_there = [entry(8000, "peers"), entry(8000, "public", at="192.0.2.77")]
    closed_there = [entry(8001, "public"), entry(8001, "peers", at="192.0.2.77")]
    for port in (8000, 8001):
        lab.node.listen("0.0.0.0", port)
    backend.apply(lab.node.path, wall(lab.node, public_there + closed_there), None)
    doors = list(product((V4, "192.0.2.77"), (8000, 8001)))
    assert ask_all(doors, lambda door: probe(lab.stranger, Proto.TCP, *door)) == {
        (V4, 8000): "timeout",
        (V4, 8001): "open",
        ("192.0.2.77", 8000): "open",
        ("192.0.2.77", 8001): "timeout",
    }


def test_a_rule_for_tcp_says_nothing_about_udp(lab: Lab, backend: Nftables) -> None:
    """TCP and UDP ports of one number are two listeners."""
    lab.node.listen("0.0.0.0", 8000)
    lab.node.listen_udp("0.0.0.0", 8000)
    backend.apply(lab.node.path, wall(lab.node, [entry(8000, "peers")]), None)
    assert probe(lab.stranger, Proto.TCP, V4, 8000) == "timeout"
    assert probe(lab.stranger, Proto.UDP, V4, 8000) == "open"
