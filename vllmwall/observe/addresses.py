"""The local addresses of a network namespace, from /proc/thread-self/net."""

from __future__ import annotations

import re
import sys
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from vllmwall.linux.netns import run_in
from vllmwall.model import Address

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
