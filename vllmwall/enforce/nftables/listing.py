"""A table as ``nft -s list table`` prints it, taken apart into its blocks. Pure.

Rules and elements are not understood here. Text, not JSON: nft 1.0.6 prints broken JSON for a
table with flags, and some builds print none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vllmwall.enforce.nftables.syntax import SYN

_BLOCK = re.compile(r"^\t(\w+) (\S+) \{(?: #.*)?\n(.*?)^\t\}$", re.MULTILINE | re.DOTALL)
_ELEMENTS = "\t\telements = {"
_ELEMENT = re.compile(r'[^,"]+(?:"[^"]*"[^,"]*)*')

# Versions of nft write it in one way or the other.
_SYN = re.compile(
    r"tcp flags & \(fin \| syn \| rst \| ack\) == syn|tcp flags syn / fin,syn,rst,ack"
)
_RESET = "meta l4proto tcp reject with tcp reset"  # some versions name the protocol

# How much of a bounded set is in use, which nft 1.1.7 prints even in a stateless listing.
_IN_USE = re.compile(r"^(\t\tsize \d+)\t# count \d+$", re.MULTILINE)

# Where no /etc/protocols exists, as in a slim image, nft prints numbers; else the names in it,
# which are not always those of nft's own grammar, that we write.
_PROTOCOL = re.compile(
    r"(?<=l4proto )\d+|(?<=l4proto != )\d+|(?<=[{,] )(?:\d+|ipv6-icmp)(?=(?:, \w+)* \} accept)"
    r"|(?<= )(?:6|17)(?= \. \d)|(?<=nexthdr != )ipv6-frag"
)
_NAMES = {
    "1": "icmp",
    "6": "tcp",
    "17": "udp",
    "33": "dccp",
    "58": "icmpv6",
    "132": "sctp",
    "136": "udplite",
    "ipv6-icmp": "icmpv6",
    "ipv6-frag": "44",  # no word of nft's grammar
}


@dataclass(frozen=True)
class Block:
    """A set, map or chain. ``filled`` is the text between the braces of its elements."""

    kind: str
    name: str
    lines: tuple[str, ...]
    filled: str

    @property
    def elements(self) -> tuple[str, ...]:
        """Its elements as nft prints them."""
        texts = map(str.strip, _ELEMENT.findall(self.filled))
        return tuple(text for text in texts if text)


@dataclass(frozen=True)
class Listing:
    """A table. ``blocks`` are named by kind and name; ``around`` are the lines outside them."""

    around: tuple[str, ...]
    blocks: Mapping[str, Block]

    def lines(self, title: str) -> tuple[str, ...]:
        """The rules of a chain, or the declaration of a set; none where it does not exist."""
        return self.blocks[title].lines if title in self.blocks else ()


def parsed(text: str) -> Listing:
    """A listing taken apart; of any other text, one without blocks."""
    blocks = {}
    for kind, name, body in _BLOCK.findall(text):
        declared, _, filled = body.partition(_ELEMENTS)
        blocks[f"{kind} {name}"] = Block(kind, name, _lines(declared), filled.rpartition("}")[0])
    return Listing(_lines(_BLOCK.sub("", text)), blocks)


def normalized(text: str) -> str:
    """Rules and declarations as our modules spell them, whichever version of nft printed them."""
    named = _PROTOCOL.sub(lambda found: _NAMES.get(found[0], found[0]), text)
    counted = _IN_USE.sub(r"\1", named)
    return _SYN.sub(SYN, counted).replace(_RESET, "reject with tcp reset")


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())
