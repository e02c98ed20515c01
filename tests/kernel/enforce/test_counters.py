"""The wall's memory of strangers, as netlink reports it and as nft prints it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.support.lab import Lab
from vllmwall.enforce.backend import Counters
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.model import Proto, Wall, WallEntry

TOTAL = re.compile(r"^\t\tcounter packets (\d+) bytes (\d+) drop$", re.MULTILINE)
REFUSED = re.compile(r"([0-9a-f.:]+) \. (tcp|udp) \. (\d+) [^,]*?counter packets (\d+) bytes (\d+)")
PORTS = ((Proto.TCP, 29500), (Proto.TCP, 65535), (Proto.UDP, 5353))


@pytest.fixture
def walled(lab: Lab, backend: Nftables) -> Iterator[Lab]:
    """A node that refuses everybody at some ports."""
    entries = {
        WallEntry(family, proto, port, ("node",)) for family in (4, 6) for proto, port in PORTS
    }
    backend.apply(lab.node.path, Wall(0, frozenset(entries), {"peers": ()}), None)
    yield lab
    backend.remove(lab.node.path)


def printed(lab: Lab) -> tuple[int, int, set[tuple[object, ...]]]:
    """The same as nft prints it."""
    table = ("inet", "vllmwall")
    shown = lab.node.run(["nft", "list", "chain", *table, "strangers"]).stdout
    packets, octets = map(int, TOTAL.findall(shown)[-1])
    for name in ("refused4", "refused6"):
        shown += lab.node.run(["nft", "list", "set", *table, name]).stdout
    return (
        packets,
        octets,
        {
            (ip_address(source), Proto(proto), int(port), int(packets), int(octets))
            for source, proto, port, packets, octets in REFUSED.findall(shown)
        },
    )


def plainly(counters: Counters) -> tuple[int, int, set[tuple[object, ...]]]:
    """What the two must agree on: all but the time."""
    refusals = {
        (one.source, one.proto, one.port, one.packets, one.bytes) for one in counters.refusals
    }
    return counters.packets, counters.bytes, refusals


def test_netlink_and_nft_tell_the_same(walled: Lab, backend: Nftables) -> None:
    """Sources of both families, both protocols, ports with both bytes in use."""
    sources = [f"203.0.113.{last}" for last in range(20, 60)]
    walled.stranger.add_address(*sources)
    for target in (walled.node.ipv4, walled.node.ipv6):
        for proto, port in PORTS:
            probe = walled.stranger.udp if proto is Proto.UDP else walled.stranger.connect
            assert "timeout" == probe(target, port, timeout=0.05)
    for source in sources:
        walled.stranger.udp(walled.node.ipv4, 5353, timeout=0.01, source=source)
    found = backend.counters(walled.node.path)
    assert 6 + len(sources) == len(found.refusals)
    assert printed(walled) == plainly(found)
    assert sum(one.packets for one in found.refusals) == found.packets
    assert sum(one.bytes for one in found.refusals) == found.bytes


@pytest.mark.serial
def test_the_time_of_the_last_packet_is_told(walled: Lab, backend: Nftables) -> None:
    """It comes from the time that the kernel will remember the source for."""

    def ago() -> float:
        (one,) = backend.counters(walled.node.path).refusals
        return one.seconds_ago

    walled.stranger.udp(walled.node.ipv4, 5353, timeout=0.01)
    begun = time.monotonic()
    assert ago() < 1
    deadline = begun + 10
    while ago() < 1.5 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert abs(ago() - (time.monotonic() - begun)) < 0.5
    walled.stranger.udp(walled.node.ipv4, 5353, timeout=0.01)
    assert ago() < 1


def test_without_a_wall_nothing_was_refused(lab: Lab, backend: Nftables) -> None:
    """No table, no set: zeros."""
    assert Counters() == backend.counters(lab.node.path)
