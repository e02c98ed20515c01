"""A stateless listing as chains of rules, and sets and maps that are read when asked. Pure.

Neither rules nor elements are understood here (`rules` does that when a packet meets them):
a wall has thousands of elements, and a packet asks a few sets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.evaluator.packet import NotUnderstoodError
from vllmwall.enforce.nftables import ruleset
from vllmwall.enforce.nftables.listing import Block, normalized, parsed
from vllmwall.enforce.nftables.names import SHIFTED
from vllmwall.enforce.nftables.objects import Meaning
from vllmwall.enforce.nftables.readback import read_wall, skeleton
from vllmwall.model import Wall

_HEAD = re.compile(r"table (?P<name>\S+ \S+) \{")
_COMMENT = re.compile(r' (?:# .*|comment "[^"]*")$')
_BASE = re.compile(
    r"type (?P<type>\w+) hook (?P<hook>\w+) priority (?P<priority>[^;]+); policy (?P<policy>\w+);"
)
_PRIORITY = re.compile(r"(?P<name>[a-z]*) ?(?P<sign>[+-]?) ?(?P<number>\d*)")
# include/linux/netfilter_ipv4.h, as nft names them for the hook input
_PRIORITIES = {"": 0, "raw": -300, "mangle": -150, "filter": 0, "security": 50}
_HARMLESS = ("type ", "typeof ", "size ", "timeout ", "gc-interval ", "policy ", "comment ")
_FLAGS = frozenset({"interval", "dynamic", "timeout", "constant"})
_TABLE_FLAGS = frozenset({"owner", "persist", "dormant"})


@dataclass(frozen=True)
class Elements:
    """A set or a map. ``texts`` are its elements as nft prints them."""

    name: str
    kind: str
    texts: tuple[str, ...]
    read: dict[object, object] = field(default_factory=dict, compare=False, repr=False)
    """The index that `rules` made of them, by the key of the rule."""


@dataclass(frozen=True)
class Chain:
    """A chain and its rules, each with its meaning where we wrote it. ``policy`` is empty where it
    is not a base chain."""

    name: str
    rules: tuple[tuple[str, Meaning], ...]
    policy: str = ""
    priority: int = 0


@dataclass(frozen=True)
class Table:
    """Our table as the kernel holds it. ``dormant``: the kernel does not apply it."""

    name: str
    chains: Mapping[str, Chain]
    lookups: Mapping[str, Block]
    dormant: bool = False
    _read: dict[str, Elements] = field(default_factory=dict, compare=False, repr=False)

    @property
    def base_chains(self) -> list[Chain]:
        """In the order in which the kernel asks them."""
        based = [chain for chain in self.chains.values() if chain.policy]
        return sorted(based, key=lambda chain: chain.priority)

    def elements(self, name: str) -> Elements:
        """A set or map by name. Raises NotUnderstoodError."""
        if name not in self._read:
            if name not in self.lookups:
                raise NotUnderstoodError(f"set {name}", "it is not in the table")
            self._read[name] = _elements(self.lookups[name])
        return self._read[name]


def read_table(text: str) -> Table:
    """The table that a stateless listing shows. Raises NotUnderstoodError."""
    head = _HEAD.match(text)
    if head is None:
        raise NotUnderstoodError("the listing", text[:80])
    listing, meanings = parsed(text), _meanings(text)
    blocks = listing.blocks.values()
    return Table(
        head["name"],
        {one.name: _chain(one, meanings) for one in blocks if one.kind == "chain"},
        {one.name: one for one in blocks if one.kind in ("set", "map")},
        "dormant" in _table_flags(listing.around[1:]),
    )


def _meanings(text: str) -> Mapping[tuple[str, str], Meaning]:
    """The meaning of each rule of ours, by its chain and text, in the table of this wall."""
    wall = skeleton(read_wall(text, 0))
    try:
        ours = ruleset.table(wall)
    except EnforceError:  # another program wrote what no wall of ours has
        ours = ruleset.table(Wall(0, frozenset(), {}))
    return {(one.name, rule.text): rule.meaning for one in ours.chains for rule in one.rules}


def _table_flags(around: Iterable[str]) -> frozenset[str]:
    """The flags of the table. Other objects (counters, flowtables) need a rule to act."""
    found: frozenset[str] = frozenset()
    for line in around:
        if line.startswith("flags"):
            found |= {flag.strip() for flag in line.removeprefix("flags").split(",")} - {""}
        elif not line.startswith("comment ") and line != "}":
            raise NotUnderstoodError("table", line)
    if unknown := found - _TABLE_FLAGS:
        raise NotUnderstoodError("table", f"flags {', '.join(sorted(unknown))}")
    return found


def _chain(block: Block, meanings: Mapping[tuple[str, str], Meaning]) -> Chain:
    name, lines = block.name, list(block.lines)
    while lines and lines[0].startswith("comment "):
        lines = lines[1:]
    base = lines[0] if lines and lines[0].startswith("type ") else ""
    rules = tuple(
        (line, meanings.get((name, normalized(line)), Meaning.NONE))
        for line in (lines[1:] if base else lines)
    )
    if not base:
        return Chain(name, rules)
    found = _BASE.fullmatch(base)
    hook = "prerouting" if name == SHIFTED else "input"
    if found is None or (found["type"], found["hook"]) != ("filter", hook):
        raise NotUnderstoodError(f"chain {name}", base)
    return Chain(name, rules, found["policy"], _priority(name, found["priority"]))


def _priority(chain: str, text: str) -> int:
    found = _PRIORITY.fullmatch(text)
    if found is None or found["name"] not in _PRIORITIES:
        raise NotUnderstoodError(f"chain {chain}", f"priority {text}")
    number = int(found["number"] or 0)
    return _PRIORITIES[found["name"]] + (-number if found["sign"] == "-" else number)


def _elements(block: Block) -> Elements:
    for line in block.lines:
        flags = {flag.strip() for flag in line.removeprefix("flags ").split(",")}
        if line.startswith("flags ") and flags <= _FLAGS:
            continue
        if line not in ("auto-merge", "counter") and not line.startswith(_HARMLESS):
            raise NotUnderstoodError(f"{block.kind} {block.name}", line)
    return Elements(block.name, block.kind, block.elements)


def without_comment(text: str) -> str:
    """A rule without its comment."""
    return _COMMENT.sub("", text)
