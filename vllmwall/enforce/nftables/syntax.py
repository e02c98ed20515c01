"""Expressions of nft that our rules share, as nft prints them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from vllmwall.enforce.nftables.objects import Meaning, Rule

MAPS = ("addr4", "addr6", "any4", "any6")  # in the order of their lookup
PORT = "meta l4proto . th dport"
SOURCE = {4: "ip saddr", 6: "ip6 saddr"}
DESTINATION = {4: "ip daddr", 6: "ip6 daddr"}
SYN = "tcp flags syn / fin,syn,rst,ack"
LOOKUP = {
    "addr4": f"{DESTINATION[4]} . {PORT}",
    "addr6": f"{DESTINATION[6]} . {PORT}",
    "any4": f"meta nfproto ipv4 {PORT}",
    "any6": f"meta nfproto ipv6 {PORT}",
}


_FIRST_PORT = "meta l4proto . ct original proto-dst"
_FIRST = {
    "addr4": f"ct original {DESTINATION[4]} . {_FIRST_PORT}",
    "addr6": f"ct original {DESTINATION[6]} . {_FIRST_PORT}",
    "any4": f"meta nfproto ipv4 {_FIRST_PORT}",
    "any6": f"meta nfproto ipv6 {_FIRST_PORT}",
}
FIRST_LOOKUP = tuple(
    (name, f"meta l4proto {proto} {lookup}")  # without a protocol nft does not know the type
    for name, lookup in _FIRST.items()
    for proto in ("tcp", "udp")
)
"""The same by the address and port that the packet had before NAT, each with its map."""


SHIFTED_FRAGMENT = "exthdr frag exists ip6 nexthdr != 44"
"""An IPv6 fragment with another extension header before that of the fragment."""


def map_lookups() -> Iterator[Rule]:
    """The rules that look a port up in every map. A port without an entry matches none."""
    for name, lookup in LOOKUP.items():
        yield Rule(f"{lookup} vmap @{name}", Meaning.AUDIENCE)
