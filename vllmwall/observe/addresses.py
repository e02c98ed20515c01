"""The local addresses of a network namespace, and those that hosts behind its NAT share."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from vllmwall.linux import netlink
from vllmwall.linux.links import addresses, links
from vllmwall.linux.netns import run_in
from vllmwall.model import Address, Network

_MOST_ROUTES = 1 << 20  # bytes
_NET = Path("/proc/thread-self/net")

# fib_trie shows each local address as a leaf "|-- 10.0.0.5" with "/32 host LOCAL" below it.
_LOCAL = re.compile(r"\|-- ([\d.]+)\n\s+/32 host LOCAL")


def own_addresses(namespace_path: str) -> tuple[Address, ...]:
    """IPv4, then IPv6, loopback among them. Raises OSError."""
    return run_in(namespace_path, _own)


def gateways() -> frozenset[Address]:
    """The next hops of the calling thread's namespace, of the first megabyte of its routes. Raises
    OSError."""
    fours = (line.split()[2] for line in _lines("route")[1:])
    sixes = (line.split()[4] for line in _lines("ipv6_route"))
    found: list[Address] = [IPv4Address(int(one, 16).to_bytes(4, sys.byteorder)) for one in fours]
    found += [IPv6Address(int(one, 16)) for one in sixes]
    return frozenset(one for one in found if not one.is_unspecified)


def _lines(name: str) -> list[str]:
    path = _NET / name
    if not path.exists():  # no IPv6 in this kernel
        return []
    with path.open() as text:
        return text.readlines(_MOST_ROUTES)


def _own() -> tuple[Address, ...]:
    fours = dict.fromkeys(map(IPv4Address, _LOCAL.findall((_NET / "fib_trie").read_text())))
    sixes: list[IPv6Address] = []
    if (_NET / "if_inet6").exists():  # no IPv6 in this kernel
        lines = (_NET / "if_inet6").read_text().splitlines()
        sixes = [IPv6Address(int(line.split()[0], 16)) for line in lines]
    return (*fours, *sixes)


def bridge_addresses_here() -> dict[Address, str]:
    """Those of bridges without a real device in the thread's namespace, each with the name of the
    bridge: containers see clients that NAT masqueraded by one of them. Raises OSError."""
    with closing(netlink.opened(netlink.ROUTE)) as route:
        devices, known = links(route), addresses(route)
    outward = {one.master for one in devices if one.kind not in ("veth", "tun", "bridge")}
    names = {
        one.index: one.name for one in devices if one.kind == "bridge" and one.index not in outward
    }
    return {address: names[index] for index, address in known if index in names}


def shared_by_nat(
    networks: Iterable[Network], bridges: Mapping[Address, str]
) -> Iterator[tuple[Network, str]]:
    """The networks that hold the address of a bridge, and why they are no good as peers."""
    for network in networks:
        for address, bridge in bridges.items():
            if address.version == network.version and address in network:
                yield (
                    network,
                    f"it holds {address}, the address of {bridge} on this node: clients that NAT "
                    "masquerades come to containers with it, and are taken for a peer",
                )
