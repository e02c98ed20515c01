"""Who was refused, kept for longer than the kernel keeps it. Pure.

The kernel forgets a source an hour after its last packet, and all of them when the table is
rebuilt (another mode, another version). `Ledger.take` is told what the kernel counts, again and
again, and adds up what went on between. What came and was forgotten between two looks is lost,
so every sum is a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from vllmwall.model import Address, Mode, Proto

KEPT_SECONDS = 86400.0
MOST = 8192  # records: what the two sets of one namespace can hold


class Refused(Protocol):
    """What the kernel remembers of one source at one port (`enforce.backend.Refusal`)."""

    @property
    def source(self) -> Address:
        """Who."""

    @property
    def proto(self) -> Proto:
        """By what."""

    @property
    def port(self) -> int:
        """Where to."""

    @property
    def packets(self) -> int:
        """How often."""

    @property
    def bytes(self) -> int:
        """How much."""

    @property
    def seconds_ago(self) -> float:
        """When last."""


class Counted(Protocol):
    """What a wall counts (`enforce.backend.Counters`)."""

    @property
    def packets(self) -> int:
        """All that it refused."""

    @property
    def bytes(self) -> int:
        """Their bytes."""

    @property
    def refusals(self) -> Iterable[Refused]:
        """Whom it remembers."""


@dataclass(frozen=True)
class Purpose:
    """What a refused port is for. Empty: no listener was known there."""

    role: str = ""
    workload: str = ""
    audience: tuple[str, ...] = ()


@dataclass(frozen=True)
class Knock:
    """One source at one port. In another mode it is another knock."""

    namespace: int
    mode: Mode
    source: Address
    proto: Proto
    port: int


@dataclass
class _Sum:
    """A counter that starts again at zero now and then, added up."""

    before: int = 0
    now: int = 0

    def take(self, value: int) -> None:
        if value < self.now:
            self.before += self.now
        self.now = value

    @property
    def total(self) -> int:
        return self.before + self.now


@dataclass
class Total:
    """Refused packets and their bytes, headers and all, over every rebuild of the table."""

    _packets: _Sum = field(default_factory=_Sum)
    _bytes: _Sum = field(default_factory=_Sum)

    @property
    def packets(self) -> int:
        """Refused packets."""
        return self._packets.total

    @property
    def bytes(self) -> int:
        """Their bytes."""
        return self._bytes.total

    def take(self, packets: int, bytes_: int) -> None:
        """What the kernel counts now."""
        self._packets.take(packets)
        self._bytes.take(bytes_)


@dataclass
class Record:
    """What is known of a knock. Times are seconds since the epoch; ``look`` is the newest one in
    which the kernel remembered it."""

    since: float
    last: float
    purpose: Purpose
    look: int = 0
    total: Total = field(default_factory=Total)


class Ledger:
    """Knocks by source and port. ``began``: seconds since the epoch."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.records: dict[Knock, Record] = {}
        self.totals: dict[tuple[int, Mode], Total] = {}
        self._looks = 0

    def take(
        self,
        space: tuple[int, Mode],
        counters: Counted,
        now: float,
        purpose: Callable[[Refused], Purpose],
    ) -> None:
        """Take what the wall of a namespace counts now, in the mode that it is in."""
        self.totals.setdefault(space, Total()).take(counters.packets, counters.bytes)
        self._looks += 1
        for one in counters.refusals:
            knock = Knock(*space, one.source, one.proto, one.port)
            self._take_one(knock, one, now - one.seconds_ago, purpose(one))
        for knock, record in self.records.items():
            if record.look != self._looks and (knock.namespace, knock.mode) == space:
                record.total.take(0, 0)  # the kernel begins anew when it comes again

    def let_go(self, living: Collection[int], now: float) -> None:
        """Forget other namespaces than these, what was long ago, and what is too much."""
        self.totals = {key: one for key, one in self.totals.items() if key[0] in living}
        self.records = {
            knock: record
            for knock, record in self.records.items()
            if knock.namespace in living and record.last > now - KEPT_SECONDS
        }
        if len(self.records) > MOST:
            newest = sorted(self.records.items(), key=lambda one: -one[1].last)
            self.records = dict(newest[:MOST])

    def _take_one(self, knock: Knock, one: Refused, last: float, purpose: Purpose) -> None:
        record = self.records.get(knock)
        if record is None:
            record = self.records[knock] = Record(last, last, purpose)
        record.look = self._looks
        record.total.take(one.packets, one.bytes)
        record.last = max(record.last, last)
        if purpose.role:  # a port that is closed by now was for what we last knew
            record.purpose = purpose
