"""How nft spells what our rules say: packets, blocks and elements, as it prints them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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


def verdicts() -> Iterator[str]:
    """The rules that ask every map; a port without an entry passes them by."""
    for name, lookup in LOOKUP.items():
        yield f"{lookup} vmap @{name}"


def block(kind: str, name: str, lines: Iterable[str]) -> str:
    """One set, map or chain as nft prints it."""
    return "\n".join([f"\t{kind} {name} {{", *(f"\t\t{line}" for line in lines), "\t}\n"])


def elements(these: Iterable[str]) -> str:
    """Elements in braces, one a line."""
    return "{ " + ",\n\t\t\t     ".join(these) + " }"


def filled(these: Iterable[str]) -> Iterator[str]:
    """The line that declares elements; none for none."""
    listed = list(these)
    if listed:
        yield f"elements = {elements(listed)}"
