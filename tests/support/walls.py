"""Building walls and trying many doors at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network
from typing import TypeVar

from tests.support.lab import PEER, Host
from vllmwall.cidr import merged
from vllmwall.linux.netns import inode_of
from vllmwall.model import Mode, Network, Proto, Wall, WallEntry

SILENCE = 0.4
"""Seconds without an answer that count as a drop; an answer on the lab's link takes 1 ms."""

NOTE = "tcpstore job-1"

Question = TypeVar("Question")


def networks(*cidrs: str) -> tuple[Network, ...]:
    """CIDRs, merged as a wall has them."""
    return merged(map(ip_network, cidrs))


def entry(
    port: int,
    *audience: str,
    proto: Proto = Proto.TCP,
    at: str | None = None,
    family: int = 4,
    note: str = NOTE,
) -> WallEntry:
    """One entry; ``at`` an address, or bound to any address of ``family``."""
    address = ip_address(at) if at else None
    version = address.version if address else family
    return WallEntry(version, proto, port, tuple(sorted(audience)), address, note)


def everywhere(port: int, *audience: str) -> list[WallEntry]:
    """Entries for a port bound to any address: both families, TCP and UDP."""
    return [
        entry(port, *audience, proto=proto, family=family)
        for proto in (Proto.TCP, Proto.UDP)
        for family in (4, 6)
    ]


def wall(
    host: Host,
    entries: Iterable[WallEntry],
    *,
    peers: Iterable[str] = PEER,
    groups: Mapping[str, Iterable[str]] | None = None,
    mode: Mode = Mode.ENFORCE,
) -> Wall:
    """The wall of a host, the lab's peer being the only peer unless said otherwise."""
    named = {name: networks(*cidrs) for name, cidrs in (groups or {}).items()}
    every = {"peers": networks(*peers), **named}
    return Wall(inode_of(host.path), frozenset(entries), every, mode)


def ask_all(
    questions: Iterable[Question], answer: Callable[[Question], str]
) -> dict[Question, str]:
    """Ask many at once: most answers are time-outs."""
    listed = list(questions)
    with ThreadPoolExecutor(48) as pool:
        return dict(zip(listed, pool.map(answer, listed), strict=True))


def probe(host: Host, proto: Proto, address: str, port: int, source: str | None = None) -> str:
    """Try one door over TCP or UDP."""
    door = host.connect if proto is Proto.TCP else host.udp
    return door(address, port, SILENCE, source)
