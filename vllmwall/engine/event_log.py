"""What happened on this node: the daemon's newest log records, in a bounded ring with numbers.

Everything that the daemon says becomes an event, whatever level the log has. The text of a
record decides its kind, the fields say the rest. Who reads by number learns of every gap: what
the ring had to give up is counted, and a daemon that started anew has another ``epoch``.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

KEPT = 2000
_LONGEST = 400  # characters; what processes call themselves can be a megabyte

KINDS: Mapping[str, str] = {
    "started": "daemon-started",
    "stopped; the walls stay up": "daemon-stopped",
    "workload appeared": "workload-appeared",
    "workload ended": "workload-ended",
    "listener walled": "listener-walled",
    "listener opened": "listener-opened",
    "listener gone": "listener-gone",
    "wall put up": "wall-up",
    "wall changed": "wall-changed",
    "walls taken down on request": "walls-down",
    "walls put up on request": "walls-up",
    "guard armed": "guard-armed",
    "guard gone": "guard-gone",
    "connections reset that the wall refuses": "severed",
    "another program touched our table": "touched",
    "a touched wall was put right": "repaired",
    "configuration loaded": "config-loaded",
    "configuration refused; the old one stays": "config-refused",
    "peers changed": "peers-changed",
    "bans changed": "bans-changed",
    "the kernel dropped events; a full pass follows": "events-lost",
    "the wall could not be changed; what stood stays": "wall-failed",
    "pass failed": "pass-failed",
    "an event could not be followed": "event-failed",
    "a wall could not be repaired": "repair-failed",
    "metrics could not be served": "metrics-failed",
}
"""The kind of an event, by the text of the log record that it comes from."""

OTHER = "other"
_NO_DETAIL = ("level", "exc_info", "namespace", "workload")


@dataclass(frozen=True)
class Happening:
    """One event. ``time`` is in seconds since the epoch; ``level`` that of the log."""

    number: int
    time: float
    kind: str
    level: str
    namespace: str
    workload: str
    detail: str


@dataclass(frozen=True)
class Since:
    """The events after a number; ``lost`` of them were given up before they were asked for."""

    epoch: str
    events: tuple[Happening, ...]
    lost: int
    newest: int


class Happenings:
    """The ring. ``counts`` are all events since the daemon started, by kind."""

    def __init__(self, kept: int = KEPT) -> None:
        self.epoch = os.urandom(8).hex()
        self.counts: Counter[str] = Counter()
        self._ring: deque[Happening] = deque(maxlen=kept)
        self._newest = 0

    def note(self, record: Mapping[str, object]) -> None:
        """Keep a log record: its text is under ``event``."""
        text = str(record.get("event", ""))
        kind = KINDS.get(text, OTHER)
        self._newest += 1
        self.counts[kind] += 1
        self._ring.append(
            Happening(
                self._newest,
                time.time(),
                kind,
                str(record.get("level", "info")),
                _short(str(record.get("namespace", ""))),
                _short(str(record.get("workload", ""))),
                _short(_detail(kind, text, record)),
            )
        )

    def since(self, number: int, epoch: str, most: int) -> Since:
        """The oldest ``most`` events after ``number``; all that is kept where the epoch is not
        ours. A number that is not given out yet counts as the newest."""
        after = min(number, self._newest) if epoch == self.epoch else 0
        found = [one for one in self._ring if one.number > after]
        oldest = found[0].number if found else after + 1
        return Since(self.epoch, tuple(found[:most]), oldest - after - 1, self._newest)

    def last(self, most: int) -> Since:
        """The newest ``most`` events."""
        found = tuple(self._ring)[-most:] if most > 0 else ()
        return Since(self.epoch, found, 0, self._newest)


def _detail(kind: str, text: str, record: Mapping[str, object]) -> str:
    """The fields, and the text where the kind does not say the same."""
    fields = [
        f"{key}={_value(value)}"
        for key, value in record.items()
        if key not in ("event", *_NO_DETAIL) and value not in ("", None, [], ())
    ]
    parts = [text] if kind == OTHER or not fields else []
    return ": ".join([*parts, *([", ".join(fields)] if fields else [])])


def _value(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
