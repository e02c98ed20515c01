"""The daemon's newest events, numbered, in a bounded ring.

Every record that the daemon logs is an event, whatever level the log has. A reader that asks by
number learns of every gap: events that the ring has dropped are counted, and each run of the
daemon has an ``epoch`` of its own.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from vllmwall.engine.event_keys import EventKey

KEPT = 2000
_LONGEST = 400  # characters; what processes call themselves can be a megabyte
_NO_DETAIL = ("namespace", "workload")


@dataclass(frozen=True)
class LoggedEvent:
    """One event. ``time`` is in seconds since the epoch; ``detail`` are its other fields."""

    number: int
    time: float
    key: EventKey
    namespace: str
    workload: str
    detail: str


@dataclass(frozen=True)
class Since:
    """The events after a number; ``lost`` of them were dropped before they were asked for."""

    epoch: str
    events: tuple[LoggedEvent, ...]
    lost: int
    newest: int


class EventLog:
    """The ring. ``counts`` are all events since the daemon started."""

    def __init__(self, kept: int = KEPT) -> None:
        self.epoch = os.urandom(8).hex()
        self.counts: Counter[EventKey] = Counter()
        self._ring: deque[LoggedEvent] = deque(maxlen=kept)
        self._newest = 0

    def add(self, key: EventKey, fields: Mapping[str, object]) -> None:
        """Keep one record of the log."""
        self._newest += 1
        self.counts[key] += 1
        self._ring.append(
            LoggedEvent(
                self._newest,
                time.time(),
                key,
                _short(str(fields.get("namespace", ""))),
                _short(str(fields.get("workload", ""))),
                _short(_detail(fields)),
            )
        )

    def since(self, number: int, epoch: str, most: int) -> Since:
        """The oldest ``most`` events after ``number``; everything that is kept where the epoch is
        not ours. A number that was not given out yet counts as the newest."""
        after = min(number, self._newest) if epoch == self.epoch else 0
        found = [one for one in self._ring if one.number > after]
        oldest = found[0].number if found else after + 1
        return Since(self.epoch, tuple(found[:most]), oldest - after - 1, self._newest)

    def last(self, most: int) -> Since:
        """The newest ``most`` events."""
        found = tuple(self._ring)[-most:] if most > 0 else ()
        return Since(self.epoch, found, 0, self._newest)


def _detail(fields: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name}={as_text(value)}"
        for name, value in fields.items()
        if name not in _NO_DETAIL and value not in ("", None, [], ())
    )


def as_text(value: object) -> str:
    """A field of a record in words; the items of a list are separated by semicolons."""
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
