"""A ledger of blocked sources, which keeps them longer than the kernel does. Pure.

The kernel forgets a source an hour after its last packet, and all of them when the table is
rebuilt (another mode, another version). `Ledger.take` gets the kernel's counters again
and again, and adds up the differences. A source that the kernel forgot between two calls is
lost, so every sum is a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from vllmwall.enforce.backend import Counters, Refusal
from vllmwall.model import Address, Mode, Proto

KEPT_SECONDS = 86400.0
OTHER = "other"
MOST = 8192  # records: what the two sets of one namespace can hold


@dataclass(frozen=True)
class Purpose:
    """What a refused port is for. Empty: no listener was known there."""

    role: str = ""
    workload: str = ""
    audience: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceAtPort:
    """One source at one port, counted apart in each mode."""

    namespace: int
    mode: Mode
    source: Address
    proto: Proto
    port: int


@dataclass
class Total:
    """Refused packets and their bytes, headers included; they only grow.

    The kernel's counters start again at zero when the table is rebuilt: `take` gets what they
    show, and adds what is new.
    """

    packets: int = 0
    bytes: int = 0
    _shown: tuple[int, int] = (0, 0)

    def take(self, packets: int, bytes_: int) -> tuple[int, int]:
        """Take what the kernel shows now; by how much packets and bytes have grown."""
        before, self._shown = self._shown, (packets, bytes_)
        grown = _grown(packets, before[0]), _grown(bytes_, before[1])
        self.add(*grown)
        return grown

    def add(self, packets: int, bytes_: int) -> None:
        """Count more."""
        self.packets += packets
        self.bytes += bytes_


def _grown(now: int, before: int) -> int:
    return now - before if now >= before else now


@dataclass
class Record:
    """What is known of a source at a port. Times are seconds since the epoch; ``look`` is the
    newest one in which the kernel remembered it."""

    since: float
    last: float
    purpose: Purpose
    look: int = 0
    total: Total = field(default_factory=Total)


class Ledger:
    """Refused packets by source and port. ``began``: seconds since the epoch.

    ``roles`` are counters by namespace (inode) and role, which a forgotten source does not lower;
    what no source is remembered for is `OTHER`.
    """

    def __init__(self, began: float) -> None:
        self.began = began
        self.records: dict[SourceAtPort, Record] = {}
        self.totals: dict[tuple[int, Mode], Total] = {}
        self.roles: dict[tuple[int, str], Total] = {}
        self._looks = 0

    def take(
        self,
        space: tuple[int, Mode],
        counters: Counters,
        now: float,
        purpose: Callable[[Refusal], Purpose],
    ) -> None:
        """Take what the wall of a namespace counts now, in the mode that it is in."""
        packets, bytes_ = self.totals.setdefault(space, Total()).take(
            counters.packets, counters.bytes
        )
        self._looks += 1
        for one in counters.refusals:
            key = SourceAtPort(*space, one.source, one.proto, one.port)
            is_new = key not in self.records
            grown = self._take_one(key, one, now - one.seconds_ago, purpose(one))
            if (
                is_new
            ):  # or forgotten because there was no room: it has not sent more than the total
                grown = min(grown[0], max(0, packets)), min(grown[1], max(0, bytes_))
            role = self.records[key].purpose.role or OTHER
            self._role(space[0], role).add(*grown)
            packets, bytes_ = packets - grown[0], bytes_ - grown[1]
        # A source is read after the total, and may have sent more in between.
        self._role(space[0], OTHER).add(max(0, packets), max(0, bytes_))
        for key, record in self.records.items():
            if record.look != self._looks and (key.namespace, key.mode) == space:
                record.total.take(0, 0)  # the kernel counts from zero when it comes again

    def forget(self, living: Collection[int], now: float) -> None:
        """Forget other namespaces than these, old sources, and the oldest beyond `MOST`."""
        self.totals = {key: one for key, one in self.totals.items() if key[0] in living}
        self.roles = {key: one for key, one in self.roles.items() if key[0] in living}
        self.records = {
            key: record
            for key, record in self.records.items()
            if key.namespace in living and record.last > now - KEPT_SECONDS
        }
        if len(self.records) > MOST:
            newest = sorted(self.records.items(), key=lambda one: -one[1].last)
            self.records = dict(newest[:MOST])

    def _take_one(
        self, key: SourceAtPort, one: Refusal, last: float, purpose: Purpose
    ) -> tuple[int, int]:
        """Take what the kernel shows of one source; by how much packets and bytes have grown."""
        record = self.records.get(key)
        if record is None:
            record = self.records[key] = Record(last, last, purpose)
        record.look = self._looks
        record.last = max(record.last, last)
        if purpose.role:  # a port that is closed by now was for what we last knew
            record.purpose = purpose
        return record.total.take(one.packets, one.bytes)

    def _role(self, namespace: int, role: str) -> Total:
        return self.roles.setdefault((namespace, role), Total())
