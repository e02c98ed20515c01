"""The match of one rule with one packet, and the verdict of the rule.

A rule is read statement by statement, from the left, and only as nft prints it; what is left over
when no statement fits is not understood. Later statements are read even where an earlier one does
not match, so that a rule is understood whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from vllmwall.enforce.evaluator.packet import NotUnderstoodError, Packet
from vllmwall.enforce.evaluator.selectors import WORDS, Range, Selector, Value, selector
from vllmwall.enforce.evaluator.table import Elements, Table, without_comment

_RATE = r"limit rate (?:over )?\d+/\w+(?: burst \d+ \w+)?"
_COUNT = r"ct count (?:over )?\d+"
_TCP_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr")
_NOTES = re.compile(
    r' comment "[^"]*"| (?:timeout|expires) \S+| counter(?: packets \d+ bytes \d+)?'
)


@dataclass(frozen=True)
class Outcome:
    """``matched`` None: it depends. ``verdict`` is that of the rule, as nft prints it."""

    matched: bool | None
    verdict: str = ""
    set: str = ""
    element: str = ""


@dataclass(frozen=True)
class Asked:
    """What a statement is read with. ``is_last``: nothing of the rule comes after it."""

    words: Mapping[str, str]
    packet: Packet
    table: Table
    is_last: bool


Statement = Callable[[Asked], Outcome]
Grammar = tuple[tuple[re.Pattern[str], Statement], ...]
MATCHED, UNMATCHED, UNDECIDED = Outcome(True), Outcome(False), Outcome(None)


def match(rule: str, packet: Packet, table: Table) -> Outcome:
    """The outcome of the rule for the packet. Raises NotUnderstoodError without the chain."""
    matched: bool | None = True
    verdict = name = element = ""
    for each in _statements(without_comment(rule), packet, table):
        if each.matched is False:
            matched = False
        elif each.matched is None and matched:
            matched = None
        verdict = each.verdict or verdict
        name, element = (each.set, each.element) if each.set else (name, element)
    return UNMATCHED if matched is False else Outcome(matched, verdict, name, element)


def _statements(rule: str, packet: Packet, table: Table) -> Iterator[Outcome]:
    rest = rule
    while rest:
        found, statement, rest = first_statement(rest, _GRAMMAR)
        try:
            yield statement(Asked(words_of(found), packet, table, not rest))
        except (ValueError, KeyError) as error:
            raise NotUnderstoodError("rule", found[0]) from error


def first_statement(rest: str, grammar: Grammar) -> tuple[re.Match[str], Statement, str]:
    """The first statement of a rule, its function, and what follows. Raises NotUnderstoodError."""
    for pattern, statement in grammar:
        if found := pattern.match(rest):
            return found, statement, rest[found.end() :].lstrip()
    raise NotUnderstoodError("rule", rest)


def words_of(found: re.Match[str]) -> Mapping[str, str]:
    """The words of a statement by their names in its pattern."""
    return {name: text for name, text in found.groupdict().items() if text is not None}


def _lookup(asked: Asked) -> Outcome:
    """In a set: matched. In a map: the element holds the verdict."""
    elements = asked.table.elements(asked.words["set"])
    if elements.kind != asked.words.get("vmap", "set"):
        raise ValueError(elements.kind)
    found = find(elements, asked.words["key"], asked.packet)
    if found is None:
        return UNMATCHED
    verdict = found.partition(" : ")[2] if elements.kind == "map" else ""
    return Outcome(True, verdict, elements.name, _NOTES.sub("", found) if verdict else found)


def _compare(asked: Asked) -> Outcome:
    """With one value or several in braces."""
    values = asked.words["values"].strip("{} ").split(", ")
    if asked.words["key"] == "ct state":
        values = [one for value in values for one in value.split(",")]
    is_negated = "not" in asked.words
    loaded = _loaded(_selectors(asked.words["key"]), asked.packet)
    found = find(Elements("", "", tuple(values)), asked.words["key"], asked.packet)
    if loaded is None:
        return UNMATCHED
    return MATCHED if (found is not None) is not is_negated else UNMATCHED


def _flags(asked: Asked) -> Outcome:
    mask, value = (_flag_set(asked.words[word]) for word in ("mask", "value"))
    if asked.packet.proto != "tcp" or asked.packet.dport is None:
        return UNMATCHED
    is_equal = asked.packet.flags & mask == value
    return MATCHED if is_equal is not ("not" in asked.words) else UNMATCHED


def _flag_set(text: str) -> frozenset[str]:
    found = frozenset(re.split(r"[ |,()]+", text.strip("() ")))
    if not found <= set(_TCP_FLAGS):
        raise ValueError(text)
    return found


def _through_vrf(asked: Asked) -> Outcome:
    """Of this host's own packets both are the VRF; the interface of others is not known here."""
    names = (asked.packet.interface, asked.packet.slave_name)
    return MATCHED if set(names) == {asked.words["vrf"]} else UNMATCHED


def _shifted(asked: Asked) -> Outcome:
    return MATCHED if asked.packet.shifted else UNMATCHED


def _remember(asked: Asked) -> Outcome:
    """A full set ends the rule (NFT_BREAK), and a limit in it matches or does not."""
    asked.table.elements(asked.words["set"])
    if _loaded(_selectors(asked.words["key"]), asked.packet) is None:
        return UNMATCHED
    return MATCHED if asked.is_last else UNDECIDED


def _reset(asked: Asked) -> Outcome:
    """nft asks for TCP before it, whether it prints that or not."""
    return Outcome(True, "reject") if asked.packet.proto == "tcp" else UNMATCHED


def _says(asked: Asked) -> Outcome:
    return Outcome(True, asked.words["verdict"])


def find(elements: Elements, key: str, packet: Packet) -> str | None:
    """The element that the packet meets. Raises NotUnderstoodError for one that cannot be read."""
    selectors = _selectors(key)
    index = elements.read.get(key)
    if not isinstance(index, _Index):
        index = elements.read[key] = _Index(elements, selectors)
    loaded = _loaded(selectors, packet)
    return index.find(loaded) if loaded is not None else None


class _Index:
    """Elements by what they match: one value each, or ranges that are tried one by one."""

    def __init__(self, elements: Elements, selectors: list[Selector]) -> None:
        self._exact: dict[tuple[Value, ...], str] = {}
        self._ranges: list[tuple[list[Range], str]] = []
        for text in elements.texts:
            try:
                ranges = _ranges(text, selectors)
            except ValueError as error:
                name = f"{elements.kind} {elements.name}" if elements.name else "rule"
                raise NotUnderstoodError(name, text) from error
            if all(low == high for low, high in ranges):
                self._exact[tuple(low for low, _ in ranges)] = text
            else:
                self._ranges.append((ranges, text))

    def find(self, loaded: tuple[Value, ...]) -> str | None:
        """The element that these values meet."""
        if loaded in self._exact:
            return self._exact[loaded]
        for ranges, text in self._ranges:
            if all(_is_in(value, each) for value, each in zip(loaded, ranges, strict=True)):
                return text
        return None


def _ranges(element: str, selectors: list[Selector]) -> list[Range]:
    key = _NOTES.sub("", element).partition(" : ")[0]
    parts = key.split(" . ")
    if len(parts) != len(selectors):
        raise ValueError(element)
    return [one.read(part) for one, part in zip(selectors, parts, strict=True)]


def _is_in(value: Value, between: Range) -> bool:
    low, high = between
    if isinstance(value, int) and isinstance(low, int) and isinstance(high, int):
        return low <= value <= high
    return value == low


def _selectors(key: str) -> list[Selector]:
    found = [selector(words) for words in key.split(" . ")]
    return [one for one in found if one is not None]


def _loaded(selectors: list[Selector], packet: Packet) -> tuple[Value, ...] | None:
    values = tuple(one.load(packet) for one in selectors)
    present = tuple(value for value in values if value is not None)
    return present if len(present) == len(values) else None


def grammar(words: str) -> Iterator[tuple[re.Pattern[str], Statement]]:
    """The statements that are understood, each with its function. ``words`` is a pattern of the
    selectors."""
    end = r"(?= |$)"
    key = rf"(?P<key>(?:{words})(?: \. (?:{words}))*)"
    value = r'(?P<values>\{ [^{}]+ \}|"[^"]*"|[^ {}@]+)'
    flags = r"\((?:\w+|[ |])+\)|\w+"
    ends = {"accept", "drop", "return", r"(?:jump|goto) \S+"}
    yield re.compile(rf"(?P<verdict>{'|'.join(sorted(ends))}){end}"), _says
    yield re.compile(rf"reject with tcp reset{end}"), _reset
    yield re.compile(r"(?P<verdict>reject)(?: with icmpx (?:type )?[\w-]+)?$"), _says
    yield re.compile(rf"counter(?: packets \d+ bytes \d+)?{end}"), lambda _: MATCHED
    log = r'log(?: prefix "[^"]*")?(?: group \d+)?(?: (?:snaplen|queue-threshold) \d+)*'
    yield re.compile(rf"{log}{end}"), lambda _: MATCHED
    yield re.compile(rf"(?:{_RATE}|{_COUNT}){end}"), lambda _: UNDECIDED
    kept = rf"(?: & [0-9a-f:.]+)?(?: (?:counter|{_RATE}|{_COUNT}))*"
    yield re.compile(rf"(?:update|add) @(?P<set>\S+) \{{ {key}{kept} \}}{end}"), _remember
    yield re.compile(rf'iifname "(?P<vrf>[^"*]+)" meta sdifname "(?P=vrf)"{end}'), _through_vrf
    yield re.compile(rf"exthdr frag exists ip6 nexthdr != (?:44|ipv6-frag){end}"), _shifted
    mask = rf"tcp flags (?P<value>\w+) / (?P<mask>[\w,]+){end}"
    yield re.compile(mask), _flags
    yield (
        re.compile(rf"tcp flags & (?P<mask>{flags}) (?:==|(?P<not>!=)) (?P<value>\w+){end}"),
        _flags,
    )
    yield re.compile(rf"{key} vmap @(?P<set>\S+){end}"), _in_map
    yield re.compile(rf"{key} @(?P<set>\S+){end}"), _lookup
    yield re.compile(rf"{key} (?P<not>!= )?{value}{end}"), _compare


def _in_map(asked: Asked) -> Outcome:
    return _lookup(Asked({**asked.words, "vmap": "map"}, asked.packet, asked.table, asked.is_last))


_GRAMMAR: Grammar = tuple(grammar(WORDS))
