"""The fate of a packet in the chains of other programs, from `nft list ruleset`. Pure.

It is `unknown`, and names the rule, where a rule that decides is not understood. A chain that is
not understood is never taken for one that accepts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from vllmwall.enforce.evaluator.foreign_rules import Arrival, match_foreign
from vllmwall.enforce.evaluator.table import Chain, Table
from vllmwall.enforce.nftables.listing import Block, parsed
from vllmwall.enforce.nftables.names import TABLE
from vllmwall.enforce.nftables.objects import Meaning

_TABLE = re.compile(r"^table (\w+ \S+) \{.*?^\}$", re.MULTILINE | re.DOTALL)
_BASE = re.compile(
    r"type (?P<type>\w+) hook (?P<hook>\w+)(?: devices? = ?\{ (?P<devices>[^}]*) \}"
    r"| device (?P<device>\S+))? priority (?P<priority>[^;]+);(?: policy (?P<policy>\w+);)?"
)
# nft 1.0.6 leaves out a target of ip6tables where iptables has the same: only the blank is there.
_NOT_PRINTED = re.compile(r"(?<=\S) $", re.MULTILINE)
_PRIORITY = re.compile(r"(?P<name>[a-z]*) ?(?P<sign>[+-]?) ?(?P<number>\d*)")
_NAMED = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
_HOOKS = ("ingress", "prerouting", "input")
_FAMILIES = {"ip": (4,), "ip6": (6,), "inet": (4, 6), "netdev": (4, 6)}
_OURS = re.compile(rf"{TABLE}(?:_.*)?")
_MOST_STEPS = 20_000
_MOST_DOUBTS = 60  # nested ones
_DEEPEST = 16  # NFT_JUMP_STACK_SIZE

_TO = re.compile(r"^(?:dnat(?: ip6?)? to|redirect(?: to)?) ?")

FateOf = Literal["accept", "drop", "reject", "forwarded", "unknown"]
_FATES: Mapping[str, FateOf] = {"accept": "accept", "drop": "drop", "reject": "reject"}


@dataclass(frozen=True)
class Fate:
    """``where`` is the table and chain, ``rule`` the rule or policy that decides there. ``to`` is
    where NAT sends the packet; ``kind`` is the type of the base chain. ``device``: only what comes
    in by it meets the chain."""

    verdict: FateOf
    where: str = ""
    rule: str = ""
    to: str = ""
    device: str = ""
    kind: str = ""

    @property
    def words(self) -> str:
        """The place and the rule, for people."""
        device = f" (what comes in by {self.device})" if self.device else ""
        return f"{self.where}{device}: {self.rule}"


@dataclass(frozen=True)
class Base:
    """A base chain of a table, and where it is."""

    table: Table
    chain: Chain
    hook: str
    kind: str
    device: str = ""


@dataclass(frozen=True)
class Ruleset:
    """The base chains of other programs for what comes in, in the packet's order."""

    bases: tuple[Base, ...]

    def fate(self, packet: Arrival) -> Fate:
        """Of a packet to this host. What a chain accepts, the next can still drop."""
        for base in self.bases:
            if packet.family not in _FAMILIES.get(base.table.name.partition(" ")[0], ()):
                continue
            if base.kind == "nat" and packet.state != "new":
                continue
            found, packet = _Walk(base).fate(packet)
            if found.verdict != "accept":
                return found
        return Fate("accept")

    @property
    def ordered(self) -> Ruleset:
        """The same in the packet's order."""
        order = sorted(self.bases, key=lambda one: (_HOOKS.index(one.hook), one.chain.priority))
        return Ruleset(tuple(order))

    @property
    def ports(self) -> tuple[int, ...]:
        """The numbers in NAT's tables that can be ports, for `fate` to tell which are."""
        texts = [
            text
            for table in {
                id(one.table): one.table for one in self.bases if one.kind == "nat"
            }.values()
            for text in _texts(table)
        ]
        numbers = {int(one) for text in texts for one in re.findall(r"(?<![\w.:])\d{1,5}\b", text)}
        return tuple(sorted(one for one in numbers if 0 < one < 65536))

    def mentioning(self, word: str) -> Iterator[tuple[str, str]]:
        """The rules of these tables that hold a word, each with its place."""
        for table in {id(one.table): one.table for one in self.bases}.values():
            for chain in table.chains.values():
                for rule, _ in chain.rules:
                    if re.search(rf"\b{word}\b", rule):
                        yield f"{table.name} {chain.name}", rule


def read_ruleset(text: str) -> Ruleset:
    """What `nft -s list ruleset` prints; our own tables are left out."""
    found: list[Base] = []
    for each in _TABLE.finditer(text):
        if not _OURS.fullmatch(each[1]):
            whole = _NOT_PRINTED.sub(" xt target that nft does not print", each[0])
            blocks = tuple(parsed(whole).blocks.values())
            found += _bases(each[1], blocks, "flags dormant" in each[0])
    return Ruleset(tuple(found)).ordered


def _bases(name: str, blocks: Iterable[Block], is_dormant: bool) -> Iterator[Base]:
    heads: dict[str, re.Match[str]] = {}
    chains: dict[str, Chain] = {}
    lookups: dict[str, Block] = {}
    for block in blocks:
        if block.kind == "chain":
            lines = [line for line in block.lines if not line.startswith("comment ")]
            if head := _BASE.fullmatch(lines[0]) if lines else None:
                heads[block.name] = head
                lines = lines[1:]
            chains[block.name] = _chain(block.name, lines, head)
        else:
            lookups[block.name] = block
    table = Table(name, chains, lookups)
    for chain, head in heads.items():
        if head["hook"] in _HOOKS and not is_dormant:
            devices = (head["devices"] or head["device"] or "").replace('"', "")
            yield Base(table, chains[chain], head["hook"], head["type"], devices)


def _chain(name: str, lines: Iterable[str], head: re.Match[str] | None) -> Chain:
    rules = tuple((line, Meaning.NONE) for line in lines)
    if head is None:
        return Chain(name, rules)
    return Chain(name, rules, head["policy"] or "accept", _priority(head["priority"]))


def _priority(text: str) -> int:
    found = _PRIORITY.fullmatch(text.strip())
    if found is None:
        return 0
    number = int(found["number"] or 0)
    return _NAMED.get(found["name"], 0) + (-number if found["sign"] == "-" else number)


def _texts(table: Table) -> Iterator[str]:
    for chain in table.chains.values():
        yield from (rule for rule, _ in chain.rules)
    for block in table.lookups.values():
        yield from block.elements


@dataclass(frozen=True)
class _At:
    """The next rule, and the places to return to."""

    chain: Chain
    rule: int = 0
    back: tuple[_At, ...] = ()

    def next(self) -> _At:
        return replace(self, rule=self.rule + 1)


class _Walk:
    """One packet in one base chain, within a bound of steps: each rule that is undecided doubles
    the ways."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._left = _MOST_STEPS

    def fate(self, packet: Arrival) -> tuple[Fate, Arrival]:
        """The fate, and the packet as the next chain meets it."""
        found, packet = self._from(packet, _At(self._base.chain))
        return replace(found, device=self._base.device, kind=self._base.kind), packet

    def _from(self, packet: Arrival, at: _At, depth: int = 0) -> tuple[Fate, Arrival]:
        """A rule that is undecided does not matter where both ways end in the same fate."""
        doubts: list[tuple[Fate, Fate]] = []  # where it leads if it matches, and what names it
        found: Fate | None = None
        while found is None:
            if at.rule >= len(at.chain.rules):
                if at.back:
                    at = replace(at.back[-1], back=at.back[:-1])
                else:
                    found = self._ended(self._base.chain, self._base.chain.policy)
                continue
            rule = at.chain.rules[at.rule][0]
            outcome = match_foreign(rule, packet, self._base.table)
            self._left -= 1
            if self._left < 0 or depth > _MOST_DOUBTS:
                found = self._fate("unknown", at, rule)
            elif outcome.matched is not False:
                packet = _after(packet, rule, outcome.matched)
                ahead = self._ahead(at, rule, outcome.verdict)
                if outcome.matched is None and outcome.verdict:
                    if isinstance(ahead, _At):
                        ahead, _ = self._from(packet, ahead, depth + 1)
                    doubts.append((ahead, self._fate("unknown", at, rule)))
                elif isinstance(ahead, Fate):
                    found = ahead
                else:
                    at = ahead
                    continue
            at = at.next()
        end = found.verdict, found.to
        differing = (name for fate, name in doubts if (fate.verdict, fate.to) != end)
        return next(differing, found), packet

    def _ahead(self, at: _At, rule: str, verdict: str) -> _At | Fate:
        """The next rule or the fate, by the verdict of a rule that matches."""
        word, _, target = verdict.partition(" ")
        if not verdict:
            return at.next()
        if word in ("jump", "goto"):
            if target not in self._base.table.chains or len(at.back) >= _DEEPEST:
                return self._fate("unknown", at, rule)
            back = (*at.back, at.next()) if word == "jump" else at.back
            return _At(self._base.table.chains[target], 0, back)
        if word == "return":
            return replace(at, rule=len(at.chain.rules))
        if word in ("dnat", "redirect"):
            return replace(self._fate("forwarded", at, rule), to=_target(verdict))
        return self._fate(_FATES.get(word, "unknown"), at, rule)

    def _ended(self, chain: Chain, policy: str) -> Fate:
        verdict: FateOf = "accept" if policy == "accept" else "drop"
        return self._fate(verdict, _At(chain), f"policy {policy}")

    def _fate(self, verdict: FateOf, at: _At, rule: str) -> Fate:
        return Fate(verdict, f"{self._base.table.name} {at.chain.name}", rule)


def _target(verdict: str) -> str:
    """``10.0.0.2:80`` of a dnat, ``:8000`` of a redirect."""
    return _TO.sub("", verdict).split(" ")[0]


def _after(packet: Arrival, rule: str, matched: bool | None) -> Arrival:
    """The packet behind a rule that did, or may have, set something."""
    if re.search(r"\bmark set\b", rule):
        packet = replace(packet, mark=None)
    if matched and re.search(r"\bnotrack\b", rule):
        packet = replace(packet, state="untracked")
    return packet
