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


def map_lookups() -> Iterator[Rule]:
    """The rules that look a port up in every map. A port without an entry matches none."""
    for name, lookup in LOOKUP.items():
        yield Rule(f"{lookup} vmap @{name}", Meaning.AUDIENCE)
