"""Judges what probes met against what was expected. Pure.

Three sources: the reply, the counters of our table for dropped packets, and whether anything at all
arrived between the two addresses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Literal

from vllmwall.inspect.prove.plan import Expected, Probe, Source, Way
from vllmwall.model import Address, Mode, Proto

Memory = Mapping[tuple[Address, Proto, int], int]
"""Packets that the wall counted as dropped, by source, protocol and port."""


class Reply(str, Enum):
    """What a probe received."""

    OPEN = "open"
    REFUSED = "refused"  # a reset, or ICMP says so
    SILENT = "no answer"


class ProbeOutcome(str, Enum):
    """Whether a result is as expected."""

    AS_EXPECTED = "as expected"
    DIFFERENT = "different"
    UNPROVEN = "unproven"
    GONE = "gone"


@dataclass(frozen=True)
class ProbeResult:
    """One probe, judged. ``by``: who closed the port, or a remark, in words."""

    probe: Probe
    seen: Literal["open", "closed", "no answer", "gone"]
    by: str
    outcome: ProbeOutcome


@dataclass(frozen=True)
class Witness:
    """Everything seen in one network namespace. ``mode`` None: there is no wall."""

    seen: Mapping[Probe, Reply]
    counted: Collection[tuple[Address, Proto, int]]
    gone: Collection[Probe]
    mode: Mode | None

    def is_counted(self, one: Probe) -> bool:
        """Whether the wall counted the packet."""
        return (one.source.address, one.target.proto, one.target.port) in self.counted

    def has_way(self, one: Probe) -> bool:
        """Whether anything arrived from that source at that address."""
        return (one.source, one.target.address) in self._ways

    @cached_property
    def _ways(self) -> frozenset[tuple[Source, Address]]:
        return frozenset(
            (one.source, one.target.address)
            for one, seen in self.seen.items()
            if seen is not Reply.SILENT or self.is_counted(one)
        )


def newly_counted(before: Memory, after: Memory) -> frozenset[tuple[Address, Proto, int]]:
    """What the wall dropped in between. Entries expire, so a lower count is new too."""
    return frozenset(key for key, packets in after.items() if before.get(key) != packets)


def judge(one: Probe, witness: Witness) -> ProbeResult:
    """Judge one probe."""
    seen = witness.seen.get(one, Reply.SILENT)
    if one in witness.gone:
        return ProbeResult(one, "gone", "the listener is gone", ProbeOutcome.GONE)
    if seen is Reply.OPEN:
        return _result(one, "open", "", one.expected is not Expected.CLOSED)
    if witness.is_counted(one):
        return _counted(one, seen, witness)
    if one.way is Way.DATAGRAM:
        return _datagram(one, seen, witness)
    if one.expected is Expected.NOT_OURS:
        return _result(one, "closed", _others(seen), True)
    if one.expected is Expected.OPEN:
        return _result(one, "closed", _others(seen), False)
    if seen is Reply.REFUSED:
        return _result(one, "closed", "refused, closed by an unknown program", True)
    if witness.has_way(one):
        return _result(one, "closed", "by an unknown program", True)
    return _unproven(one)


def _counted(one: Probe, seen: Reply, witness: Witness) -> ProbeResult:
    """The wall counted the packet; in audit mode it does not drop it."""
    if witness.mode is Mode.ENFORCE:
        return _result(one, "closed", "by vllmwall", one.expected is Expected.CLOSED)
    if one.way is Way.DATAGRAM:
        return _result(one, "open", "counted, not dropped", one.expected is Expected.OPEN)
    return _result(
        one, "closed", f"{seen.value}, not by vllmwall", one.expected is not Expected.OPEN
    )


def _datagram(one: Probe, seen: Reply, witness: Witness) -> ProbeResult:
    """Nothing answers a broken datagram: only the wall's counter tells."""
    if seen is Reply.REFUSED:
        return _result(one, "closed", _others(seen), one.expected is not Expected.OPEN)
    if not witness.has_way(one):
        return _unproven(one)
    return _result(one, "open", "not dropped by vllmwall", one.expected is not Expected.CLOSED)


def _unproven(one: Probe) -> ProbeResult:
    why = "no packet arrived at that address: inconclusive"
    return ProbeResult(one, "no answer", why, ProbeOutcome.UNPROVEN)


def _others(seen: Reply) -> str:
    return f"{seen.value}, not by vllmwall: another firewall?"


def _result(one: Probe, seen: Literal["open", "closed"], by: str, fits: bool) -> ProbeResult:
    return ProbeResult(one, seen, by, ProbeOutcome.AS_EXPECTED if fits else ProbeOutcome.DIFFERENT)
