"""What came of the tries, against what must. Pure.

Three witnesses: the answer, our table's memory of whom it refused, and whether anything at all
came through between the two addresses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from vllmwall.inspect.prove.plan import Expected, Source, Try, Way
from vllmwall.model import Address, Mode, Proto

Memory = Mapping[tuple[Address, Proto, int], int]
"""Packets that the wall remembers as refused, by source, protocol and port."""


class Seen(str, Enum):
    """What a try met."""

    OPEN = "open"
    REFUSED = "refused"  # a reset, or ICMP says so
    SILENT = "no answer"


class Outcome(str, Enum):
    """Whether it is as it must be."""

    AS_EXPECTED = "as expected"
    DIFFERENT = "different"
    UNPROVEN = "unproven"
    GONE = "gone"


@dataclass(frozen=True)
class Verdict:
    """One try, judged. ``by``: whose doing it is, or what is to be known, in words."""

    tried: Try
    seen: str
    by: str
    outcome: Outcome


@dataclass(frozen=True)
class Witness:
    """All that was seen in one network namespace. ``mode`` None: no wall of ours stands."""

    seen: Mapping[Try, Seen]
    counted: Collection[tuple[Address, Proto, int]]
    gone: Collection[Try]
    mode: Mode | None

    def is_counted(self, one: Try) -> bool:
        """Whether the wall remembers the packet."""
        return (one.source.address, one.target.proto, one.target.port) in self.counted

    def has_way(self, one: Try) -> bool:
        """Whether anything came through from that source to that address."""
        return (one.source, one.target.address) in self._ways

    @cached_property
    def _ways(self) -> frozenset[tuple[Source, Address]]:
        return frozenset(
            (one.source, one.target.address)
            for one, seen in self.seen.items()
            if seen is not Seen.SILENT or self.is_counted(one)
        )


def newly_counted(before: Memory, after: Memory) -> frozenset[tuple[Address, Proto, int]]:
    """What the wall refused in between. Entries expire, so that less is news too."""
    return frozenset(key for key, packets in after.items() if before.get(key) != packets)


def judge(one: Try, witness: Witness) -> Verdict:
    """One try against what must be."""
    seen = witness.seen.get(one, Seen.SILENT)
    if one in witness.gone:
        return Verdict(one, "gone", "the listener went away meanwhile", Outcome.GONE)
    if seen is Seen.OPEN:
        return _verdict(one, "open", "", one.expected is not Expected.CLOSED)
    if witness.is_counted(one):
        return _counted(one, seen, witness)
    if one.way is Way.DATAGRAM:
        return _datagram(one, seen, witness)
    if one.expected is Expected.NOT_OURS:
        return _verdict(one, "closed", _others(seen), True)
    if one.expected is Expected.OPEN:
        return _verdict(one, "closed", _others(seen), False)
    if seen is Seen.REFUSED:
        return _verdict(one, "closed", "refused, by whom unknown", True)
    if witness.has_way(one):
        return _verdict(one, "closed", "by whom unknown", True)
    return Verdict(one, "no answer", "nothing came through: proves nothing", Outcome.UNPROVEN)


def _counted(one: Try, seen: Seen, witness: Witness) -> Verdict:
    """Our wall met the packet: in audit mode it counts and lets pass."""
    if witness.mode is Mode.ENFORCE:
        return _verdict(one, "closed", "by vllmwall", one.expected is Expected.CLOSED)
    if one.way is Way.DATAGRAM:
        return _verdict(one, "open", "counted, not dropped", one.expected is Expected.OPEN)
    return _verdict(
        one, "closed", f"{seen.value}, not by vllmwall", one.expected is not Expected.OPEN
    )


def _datagram(one: Try, seen: Seen, witness: Witness) -> Verdict:
    """Nothing answers a broken datagram: that our wall did not refuse it is all there is."""
    if seen is Seen.REFUSED:
        return _verdict(one, "closed", _others(seen), one.expected is not Expected.OPEN)
    if not witness.has_way(one):
        return Verdict(one, "no answer", "nothing came through: proves nothing", Outcome.UNPROVEN)
    return _verdict(one, "open", "not refused by vllmwall", one.expected is not Expected.CLOSED)


def _others(seen: Seen) -> str:
    return f"{seen.value}, not by vllmwall: another firewall?"


def _verdict(one: Try, seen: str, by: str, fits: bool) -> Verdict:
    return Verdict(one, seen, by, Outcome.AS_EXPECTED if fits else Outcome.DIFFERENT)
