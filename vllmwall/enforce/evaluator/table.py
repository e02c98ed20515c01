"""``nft -s list table`` taken apart: chains of rules, and sets and maps that are read when asked.

Neither rules nor elements are understood here (`matching` does that when a packet meets them):
a wall has thousands of elements, and a packet asks a few sets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from vllmwall.enforce.evaluator.packet import NotUnderstoodError

_HEAD = re.compile(r"table (?P<name>\S+ \S+) \{")
_BLOCK = re.compile(r"^\t(\w+) (\S+) \{(?: #.*)?\n(.*?)^\t\}$", re.MULTILINE | re.DOTALL)
_ELEMENT = re.compile(r'(?:[^,"]|"[^"]*")+')
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
    """What `matching` made of them, by what they were asked for."""


@dataclass(frozen=True)
class Chain:
    """A chain and its rules. ``policy`` is empty where it is not a base chain."""

    name: str
    rules: tuple[str, ...]
    policy: str = ""
    priority: int = 0


@dataclass(frozen=True)
class Table:
    """Our table as the kernel holds it. ``dormant``: it is there and does nothing."""

    name: str
    chains: Mapping[str, Chain]
    lookups: Mapping[str, tuple[str, str]]
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
            self._read[name] = _elements(name, *self.lookups[name])
        return self._read[name]


def read_table(text: str) -> Table:
    """The table that a stateless listing shows. Raises NotUnderstoodError."""
    head = _HEAD.match(text)
    if head is None:
        raise NotUnderstoodError("the listing", text[:80])
    chains: dict[str, Chain] = {}
    lookups: dict[str, tuple[str, str]] = {}
    for kind, name, body in _BLOCK.findall(text):
        if kind == "chain":
            chains[name] = _chain(name, _lines(body))
        elif kind in ("set", "map"):
            lookups[name] = (kind, body)
    around = _lines(_BLOCK.sub("", text.partition("\n")[2]))
    return Table(head["name"], chains, lookups, "dormant" in _table_flags(around))


def _table_flags(around: Iterable[str]) -> frozenset[str]:
    """What the table itself declares. Other objects (counters, flowtables) do nothing unasked."""
    found: frozenset[str] = frozenset()
    for line in around:
        if line.startswith("flags"):
            found |= {flag.strip() for flag in line.removeprefix("flags").split(",")} - {""}
        elif not line.startswith("comment ") and line != "}":
            raise NotUnderstoodError("table", line)
    if unknown := found - _TABLE_FLAGS:
        raise NotUnderstoodError("table", f"flags {', '.join(sorted(unknown))}")
    return found


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _chain(name: str, lines: list[str]) -> Chain:
    while lines and lines[0].startswith("comment "):
        lines = lines[1:]
    base = lines[0] if lines and lines[0].startswith("type ") else ""
    rules = tuple(lines[1:] if base else lines)
    if not base:
        return Chain(name, rules)
    found = _BASE.fullmatch(base)
    if found is None or (found["type"], found["hook"]) != ("filter", "input"):
        raise NotUnderstoodError(f"chain {name}", base)
    return Chain(name, rules, found["policy"], _priority(name, found["priority"]))


def _priority(chain: str, text: str) -> int:
    found = _PRIORITY.fullmatch(text)
    if found is None or found["name"] not in _PRIORITIES:
        raise NotUnderstoodError(f"chain {chain}", f"priority {text}")
    number = int(found["number"] or 0)
    return _PRIORITIES[found["name"]] + (-number if found["sign"] == "-" else number)


def _elements(name: str, kind: str, body: str) -> Elements:
    declared, _, filled = body.partition("elements = {")
    for line in _lines(declared):
        flags = {flag.strip() for flag in line.removeprefix("flags ").split(",")}
        if line.startswith("flags ") and flags <= _FLAGS:
            continue
        if line not in ("auto-merge", "counter") and not line.startswith(_HARMLESS):
            raise NotUnderstoodError(f"{kind} {name}", line)
    inner, _, _ = filled.rpartition("}")
    texts = (" ".join(text.split()) for text in _ELEMENT.findall(inner))
    return Elements(name, kind, tuple(text for text in texts if text))


def without_comment(text: str) -> str:
    """A rule without what it says for people."""
    return _COMMENT.sub("", text)
