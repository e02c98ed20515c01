"""What else in a network namespace could have a say: other tables' hooks and kernel settings.

Only names are read, by netlink: what is in others' tables is theirs, and an old nft can crash on
what a newer one put there. Legacy iptables shows by the tables that it registered. Layouts:
linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

from vllmwall.enforce.nftables import ownership
from vllmwall.linux import netlink

_GET_CHAINS, _NEW_CHAIN = 0x0A04, 0x0A03  # NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_*CHAIN
_TABLE, _NAME, _HOOK = 1, 3, 4  # NFTA_CHAIN_*
_HOOK_NUMBER = 1  # NFTA_HOOK_HOOKNUM
_HOOKS = {0: "prerouting", 1: "input"}  # what an arriving packet meets, linux/netfilter.h
_FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 10: "ip6"}
_TYPE = 0x3FFF
_SETTINGS = ("ipv4/conf/all/rp_filter", "ipv4/ip_forward", "ipv6/conf/all/forwarding")


def surroundings() -> list[str]:
    """For the namespace of the calling thread, a line each. Empty: nothing but us."""
    lines = []
    if chains := sorted(set(_chains())):
        lines.append(f"other firewalls: {', '.join(chains)}")
    for name in ("ip_tables_names", "ip6_tables_names"):
        with contextlib.suppress(OSError):
            tables = Path("/proc/self/net", name).read_text().split()
            if tables:
                lines.append(
                    f"{name.partition('_names')[0]} may hold rules in: {', '.join(tables)}"
                )
    settings = ", ".join(_settings())
    return [*lines, f"kernel: {settings}"] if settings else lines


def _settings() -> Iterator[str]:
    for name in _SETTINGS:
        with contextlib.suppress(OSError):
            value = Path("/proc/sys/net", name).read_text().strip()
            if value != "0":
                yield f"{name.replace('/', '.')}={value}"


def _chains() -> Iterator[str]:
    """The base chains of other tables that an arriving packet meets."""
    with contextlib.closing(netlink.opened(ownership.NETFILTER)) as asked:
        for part in netlink.dumped(asked, _GET_CHAINS, struct.pack("=BBH", 0, 0, 0)):
            for start, end in netlink.messages(part, _NEW_CHAIN):
                family = _FAMILIES.get(part[start], "")
                found = dict(_attributes(part, start + 4, end))
                table, name = (_text(found.get(kind, b"")) for kind in (_TABLE, _NAME))
                hook = dict(_attributes(found.get(_HOOK, b""), 0, len(found.get(_HOOK, b""))))
                number = int.from_bytes(hook.get(_HOOK_NUMBER, b"\xff"), "big")
                is_seen = family and (number in _HOOKS or (family == "netdev" and _HOOK in found))
                if is_seen and (family, table) != ("inet", ownership.NAME):
                    where = "ingress" if family == "netdev" else _HOOKS[number]
                    yield f"{family} {table} {name} ({where})"


def _attributes(data: bytes, position: int, end: int) -> Iterator[tuple[int, bytes]]:
    while position + netlink.ATTRIBUTE.size <= end:
        length, kind = netlink.ATTRIBUTE.unpack_from(data, position)
        yield kind & _TYPE, data[position + netlink.ATTRIBUTE.size : position + length]
        position += max(length + 3 & ~3, netlink.ATTRIBUTE.size)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
