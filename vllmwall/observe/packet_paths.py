"""The ways that packets take to the sockets of a network namespace, where they are unusual:
devices, settings and NAT."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from ipaddress import IPv6Address
from itertools import islice
from pathlib import Path
from socket import socket

from vllmwall.linux import netlink
from vllmwall.linux.links import addresses, links

_CONF = Path("/proc/sys/net/ipv4/conf")
_LEGACY = ("/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names")
# linux/netfilter/nf_tables.h: message numbers, attributes of a chain and of its hook
_NEW_CHAIN, _GET_CHAIN = 0x0A03, 0x0A04
_CHAIN_HOOK, _CHAIN_TYPE, _HOOK_NUMBER = 4, 7, 1
_PREROUTING = struct.pack("!I", 0)  # NF_INET_PRE_ROUTING
_GENERIC = struct.pack("!BBH", 0, 0, 0)  # struct nfgenmsg: of every family
_NFGENMSG = 4
_MOST_CHAINS = 20_000  # 50 ms; more are taken for NAT, which costs a rule and opens nothing


@dataclass(frozen=True)
class PacketPath:
    """A namespace as its packets meet it.

    ``nat``: NAT may change the destination of what comes in. ``vrfs`` are the names of its VRF
    devices. ``in_vrfs`` are the IPv6 addresses of their members: a packet of this host to one of
    them comes in as one from outside does, so no rule can tell them apart (ip6_rcv_core takes the
    device of the address for its interface; 6.1). ``l3s`` names the ipvlan devices whose packets
    are filtered in the namespace of their master and not here.
    """

    nat: bool = False
    vrfs: frozenset[str] = frozenset()
    in_vrfs: tuple[IPv6Address, ...] = ()
    l3s: tuple[str, ...] = ()


def packet_path() -> PacketPath:
    """That of the calling thread's network namespace. Raises OSError."""
    with closing(netlink.opened(netlink.ROUTE)) as route:
        found = links(route)
        vrfs = {one.index for one in found if one.kind == "vrf"}
        members = {one.index for one in found if one.master in vrfs}
        known = addresses(route) if members else ()
        within = {one for index, one in known if index in members and not one.is_link_local}
    return PacketPath(
        _has_nat(),
        frozenset(one.name for one in found if one.kind == "vrf"),
        tuple(sorted(one for one in within if isinstance(one, IPv6Address))),
        tuple(sorted(one.name for one in found if one.is_l3s)),
    )


def routes_loopback() -> bool:
    """Whether an interface of the calling thread's network namespace takes packets to 127.0.0.0/8
    from other hosts: ``route_localnet``, for all or for one (ip-sysctl.rst)."""
    with suppress(OSError):
        settings = (one / "route_localnet" for one in _CONF.iterdir())
        return any(one.read_text().strip() == "1" for one in settings)
    return False


def _has_nat() -> bool:
    """Whether a nat table has a chain for what comes in, with rules or without."""
    with closing(netlink.opened(netlink.NETFILTER)) as asked:
        chains = list(islice(_chains(asked), _MOST_CHAINS))
    return len(chains) == _MOST_CHAINS or any(chains) or any(map(_has_legacy_nat, _LEGACY))


def _chains(asked: socket) -> Iterator[bool]:
    """For each chain, whether it is one of NAT for what comes in."""
    for part in netlink.dumped(asked, _GET_CHAIN, _GENERIC):
        for start, end in netlink.messages(part, _NEW_CHAIN, _NFGENMSG):
            found = netlink.values(part, start + _NFGENMSG, end)
            hook = netlink.values(found.get(_CHAIN_HOOK, b""))
            is_nat = found.get(_CHAIN_TYPE) == b"nat\0"
            yield is_nat and hook.get(_HOOK_NUMBER) == _PREROUTING


def _has_legacy_nat(path: str) -> bool:
    with suppress(OSError):
        return "nat" in Path(path).read_text().split()
    return False
