"""The match of one rule of another program with one packet. Pure.

Other programs use all of nft's language, and we know a part of it. So a rule that is not understood
whole is not refused as in our own table: it is *undecided*, unless a part that is understood does
not match. Some things cannot be known of a packet that was not sent, such as the interface that it
comes in by. They are undecided too.

Assumed: the destination is an address of this host, the source has a route back, and what comes in
has no mark before a rule sets one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vllmwall.enforce.evaluator.packet import NotUnderstoodError, Packet
from vllmwall.enforce.evaluator.rules import (
    MATCHED,
    UNDECIDED,
    UNMATCHED,
    Asked,
    Grammar,
    Outcome,
    Statement,
    find,
    first_statement,
    grammar,
    words_of,
)
from vllmwall.enforce.evaluator.selectors import (
    EXTRA,
    WORDS,
    UndecidedError,
)
from vllmwall.enforce.evaluator.table import Elements, Table, without_comment

ANY = "any"
"""The verdict of a rule that may do anything: only its beginning was understood."""

_END = r"(?= |$)"
_VERDICT = re.compile(
    r"(?:^| )(accept|drop|return|(?:jump|goto) \S+|reject\b.*|(?:dnat|redirect).*)$"
)
_OPAQUE = re.compile(r"\b(?:vmap|queue|tproxy|synproxy|fwd|dup|xt target)\b")


@dataclass(frozen=True)
class Arrival(Packet):
    """A packet on its way through other programs' chains. ``mark`` None: a rule may have set it."""

    mark: int | None = 0


def match_foreign(rule: str, packet: Arrival, table: Table) -> Outcome:
    """The outcome of a rule. Raises nothing: what is not understood is undecided (None)."""
    matched: bool | None = True
    verdict, rest = "", without_comment(rule)
    while rest:
        try:
            found, statement, after = first_statement(rest, _GRAMMAR)
            each = statement(Asked(words_of(found), packet, table, not after))
        except (NotUnderstoodError, ValueError, KeyError):
            return UNMATCHED if matched is False else Outcome(None, _verdict_in(rest))
        if each.matched is False:
            matched = False
        elif each.matched is None and matched:
            matched = None
        verdict, rest = each.verdict or verdict, after
    return UNMATCHED if matched is False else Outcome(matched, verdict)


def _verdict_in(rest: str) -> str:
    """The verdict of a rule of which this part is not understood."""
    if _OPAQUE.search(rest):
        return ANY
    found = _VERDICT.search(rest)
    return found[1] if found else ""


def _decided(statement: Statement) -> Statement:
    """The same, undecided where a selector's value is not known."""

    def decided(asked: Asked) -> Outcome:
        try:
            return statement(asked)
        except UndecidedError:
            return Outcome(None, ANY) if "vmap" in asked.words else UNDECIDED

    return decided


def _interface(asked: Asked) -> Outcome:
    """By name or number. Of a packet from outside it is only known that it is not lo."""
    names = {one.strip('" ') for one in asked.words["values"].strip("{}").split(",")}
    is_lo = asked.packet.interface == "lo"
    others = names - {"lo", "1"}  # lo is always the first device
    if not is_lo and others:
        return UNDECIDED
    return MATCHED if (is_lo and names != others) is not ("not" in asked.words) else UNMATCHED


def _masked(asked: Asked) -> Outcome:
    packet = asked.packet
    if not isinstance(packet, Arrival) or packet.mark is None:
        return UNDECIDED
    mask, value = int(asked.words["mask"], 0), int(asked.words["value"], 0)
    is_equal = packet.mark & mask == value
    return MATCHED if is_equal is not ("not" in asked.words) else UNMATCHED


def _not_in(asked: Asked) -> Outcome:
    """A packet without such a field matches no comparison."""
    found = find(asked.table.elements(asked.words["set"]), asked.words["key"], asked.packet)
    proto = asked.words["key"].partition(" ")[0]
    has_field = proto not in ("tcp", "udp") or proto == asked.packet.proto
    return MATCHED if found is None and has_field else UNMATCHED


def _some_flag(asked: Asked) -> Outcome:
    """``tcp flags syn``: at least one of them is set."""
    flags = frozenset(asked.words["flags"].split(","))
    return MATCHED if asked.packet.proto == "tcp" and asked.packet.flags & flags else UNMATCHED


def _in_braces(asked: Asked) -> Outcome:
    """A map without a name."""
    texts = tuple(one.strip() for one in asked.words["values"].split(", "))
    found = find(Elements("", "map", texts), asked.words["key"], asked.packet)
    return UNMATCHED if found is None else Outcome(True, found.partition(" : ")[2])


def _balanced(asked: Asked) -> Outcome:
    """Of several backends the first: to know that it goes to one of them is enough."""
    return Outcome(True, asked.words["values"].split(", ")[0].partition(" : ")[2])


def _says(asked: Asked) -> Outcome:
    return Outcome(True, asked.words["verdict"])


def _grammar() -> Iterator[tuple[re.Pattern[str], Statement]]:
    words = "|".join([*sorted(map(re.escape, EXTRA), key=len, reverse=True), WORDS])
    key = rf"(?P<key>(?:{words})(?: \. (?:{words}))*)"
    values = r'(?P<values>\{ [^{}]+ \}|"[^"]*"|\S+)'
    yield re.compile(rf"(?:iifname|iif) (?:(?P<not>!=) )?{values}{_END}"), _interface
    mark = r"(?:meta )?mark (?:&|and) (?P<mask>\w+) (?:==|(?P<not>!=)) (?P<value>\w+)"
    yield re.compile(mark + _END), _masked
    op = r"(?:or|and|xor|\||&|\^)"
    value = rf'"[^"]*"|(?:(?:meta|ct) )?mark(?: {op} \S+)+|\S+(?: {op} \S+)*'
    what = r"mark|priority|nftrace|helper|zone|label|secmark"
    yield re.compile(rf"(?:(?:meta|ct) )?(?:{what}) set (?:{value}){_END}"), lambda _: MATCHED
    yield re.compile(rf"notrack{_END}"), lambda _: MATCHED
    log = r'(?:prefix "[^"]*"|(?:group|snaplen|queue-threshold) \d+|level \w+|flags [\w ,]+?)'
    yield re.compile(rf"log(?: {log})*{_END}"), lambda _: MATCHED
    nat = r"dnat(?: ip6?)? to [^@{]+|redirect(?: to \S+)?(?: [\w,-]+)?"
    yield re.compile(rf"(?P<verdict>{nat})$"), _says
    reject = r"reject(?: with icmp(?:v6|x)? (?:type )?[\w-]+)?"
    yield re.compile(rf"(?P<verdict>{reject})$"), lambda _: Outcome(True, "reject")
    yield re.compile(rf"fib saddr \. (?:mark \. )?iif oif (?:missing|0){_END}"), lambda _: UNMATCHED
    yield re.compile(r"tcp flags (?P<flags>[a-z,]+)(?= (?!/)|$)"), _some_flag
    yield re.compile(rf"{key} != @(?P<set>\S+){_END}"), _not_in
    several = r"numgen (?:random|inc) mod \d+(?: offset \d+)? vmap \{ (?P<values>[^{}]+) \}"
    yield re.compile(several + _END), _balanced
    yield re.compile(rf"{key} (?P<vmap>vmap) \{{ (?P<values>[^{{}}]+) \}}{_END}"), _in_braces
    yield from grammar(words)


_GRAMMAR: Grammar = tuple((pattern, _decided(one)) for pattern, one in _grammar())
