"""Merges addresses into the fewest networks with few other addresses. Pure.

A network replaces the addresses in it only if

- at least `FEWEST` of its addresses were seen, and at least half of them all,
- all of it is private: a public address beside one that was seen may belong to anyone,
- it contains none of the addresses that must stay blocked.

A network whose addresses were all seen is merged in any case: it contains no others.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from vllmwall.api.blocked import is_private
from vllmwall.cidr import merged
from vllmwall.model import Address, Network

FEWEST = 3


def exactly(addresses: Iterable[Address]) -> tuple[Network, ...]:
    """The fewest networks that hold these addresses and no other."""
    return merged(ip_network(address) for address in addresses)


def sensibly(addresses: Collection[Address], outside: Collection[Address]) -> tuple[Network, ...]:
    """The fewest networks by the rules above. ``outside`` must stay blocked."""
    found: list[Network] = []
    for version, everyone in ((4, IPv4Network("0.0.0.0/0")), (6, IPv6Network("::/0"))):
        seen = sorted({int(one) for one in addresses if one.version == version})
        out = sorted({int(one) for one in outside if one.version == version})
        found += _cover(everyone, seen, out)
    return merged(found)


def _cover(network: Network, seen: Sequence[int], outside: Sequence[int]) -> Iterator[Network]:
    inside = _within(network, seen)
    if not inside:
        return
    if network.num_addresses == 1 or _is_sensible(network, len(inside), outside):
        yield network
        return
    for half in network.subnets():
        yield from _cover(half, inside, outside)


def _is_sensible(network: Network, seen: int, outside: Sequence[int]) -> bool:
    if seen == network.num_addresses:
        return True
    return (
        seen >= FEWEST
        and 2 * seen >= network.num_addresses
        and is_private(network.network_address)
        and not _within(network, outside)
    )


def _within(network: Network, numbers: Sequence[int]) -> Sequence[int]:
    first, last = int(network.network_address), int(network.broadcast_address)
    return numbers[bisect_left(numbers, first) : bisect_left(numbers, last + 1)]
