"""The exporter: what Prometheus is told, by HTTP from the daemon's loop and in a text file.

A page is made anew once a second at most and takes a twentieth of the time at most, however often
it is asked for. With metrics switched off nothing of this is there, nor the library behind it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vllmwall.api.blocked import look
from vllmwall.api.blocked_answer import BlockedFacts
from vllmwall.api.metrics.definitions import Drops, MetricFacts
from vllmwall.api.metrics.http import ScrapeServer, listening_on
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.refusals import Knock, Ledger, Total
from vllmwall.linux.files import replace_file
from vllmwall.model import Mode

if TYPE_CHECKING:
    from vllmwall.config.settings import MetricsSettings
    from vllmwall.engine.state import State

OTHER = "other"
_FRESH_SECONDS = 1.0
_HOUR = 3600.0
_SHARE = 20  # a page is as old as twenty times what making it took, at most once a second


class Metrics:
    """The exporter of one daemon. What of it does not work is in the state's problems."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._section: MetricsSettings | None = None
        self._server: ScrapeServer | None = None
        self._drops = DropCounts()
        self._page = b""
        self._until = 0.0

    @property
    def reading(self) -> list[int]:
        """Descriptors to poll for input."""
        return self._server.reading if self._server else []

    @property
    def writing(self) -> list[int]:
        """Descriptors to poll for output."""
        return self._server.writing if self._server else []

    def ready(self, descriptor: int) -> bool:
        """Serve one descriptor that poll reported; False: it is none of ours."""
        return self._server is not None and self._server.ready(descriptor)

    def after_pass(self) -> None:
        """Follow the configuration, and write the text file. Raises nothing."""
        section = self._state.reconciler.config.metrics
        if section != self._section or (section.listen and self._server is None):
            self._open(section)
        if section.textfile:
            try:
                replace_file(Path(section.textfile), self.page(), 0o644, durable=False)
                self._solved("textfile")
            except Exception as error:  # a metric must not cost a pass
                self._say("textfile", f"{section.textfile}: {error}")

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        from vllmwall.api.metrics.exposition import exposition

        begun = time.monotonic()
        if begun >= self._until:
            self._page = exposition(self._facts())
            now = time.monotonic()
            self._until = now + max(_FRESH_SECONDS, _SHARE * (now - begun))
        return self._page

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()
        self._server = None

    def _open(self, section: MetricsSettings) -> None:
        self.close()
        self._section = section
        if not section.listen:
            self._solved("listen")
            return
        from vllmwall.api.metrics.exposition import CONTENT_TYPE
        from vllmwall.api.server import group_id

        try:
            listening = listening_on(
                section.listen, group_id(self._state.reconciler.config.control_group)
            )
        except OSError as error:
            self._say("listen", f"{section.listen}: {error.strerror or error}")
            return
        self._server = ScrapeServer(listening, self.page, CONTENT_TYPE)
        self._solved("listen")

    def _say(self, key: str, why: str) -> None:
        subject, problem = f"metrics.{key}", f"metrics: {why}"
        if self._state.problems.get(subject) != problem:
            self._state.problems[subject] = problem
            self._state.log(EventKey.METRICS_FAILED, error=why)

    def _solved(self, key: str) -> None:
        self._state.problems.pop(f"metrics.{key}", None)

    def _facts(self) -> MetricFacts:
        state = self._state
        status, refused = state.status(), look(state)
        self._drops.take(refused.ledger)
        return MetricFacts(
            status,
            state.daemon,
            state.measures,
            dict(state.event_log.counts),
            self._drops.by_role(refused.names),
            dict(_sources(refused)),
            status.bans,
        )


@dataclass
class DropCounts:
    """Counters that only grow, by namespace (inode) and role.

    The ledger of refusals forgets sources; what it attributed to a role once stays counted here.
    What is in a namespace's total and in no source's is ``other``.
    """

    _sums: dict[tuple[int, str], Drops] = field(default_factory=dict)
    _knocks: dict[Knock, Drops] = field(default_factory=dict)
    _totals: dict[int, Drops] = field(default_factory=dict)

    def take(self, ledger: Ledger) -> None:
        """Add what came since the last call."""
        named: dict[int, Drops] = {}
        knocks = {}
        for knock, record in ledger.records.items():
            now = Drops(record.total.packets, record.total.bytes)
            added = _grown(now, self._knocks.get(knock))
            self._add(knock.namespace, record.purpose.role or OTHER, added)
            named[knock.namespace] = _plus(named.get(knock.namespace), added)
            knocks[knock] = now
        self._knocks = knocks
        for inode, total in _totals(ledger.totals).items():
            grown = _grown(total, self._totals.get(inode))
            self._add(inode, OTHER, _grown(grown, named.get(inode)))
            self._totals[inode] = total

    def by_role(self, names: dict[int, str]) -> dict[tuple[str, str], Drops]:
        """By the name of the namespace and role; ended namespaces are left out, and forgotten."""
        self._sums = {key: drops for key, drops in self._sums.items() if key[0] in names}
        self._totals = {key: drops for key, drops in self._totals.items() if key in names}
        found: dict[tuple[str, str], Drops] = {}
        for (inode, role), drops in self._sums.items():
            place = (names[inode], role)
            found[place] = _plus(found.get(place), drops)
        return found

    def _add(self, inode: int, role: str, drops: Drops) -> None:
        self._sums[inode, role] = _plus(self._sums.get((inode, role)), drops)


def _totals(totals: Mapping[tuple[int, Mode], Total]) -> dict[int, Drops]:
    found: dict[int, Drops] = {}
    for (inode, _), total in totals.items():
        found[inode] = _plus(found.get(inode), Drops(total.packets, total.bytes))
    return found


def _sources(refused: BlockedFacts) -> Iterator[tuple[str, int]]:
    seen: dict[int, set[object]] = {inode: set() for inode in refused.names}
    for knock, record in refused.ledger.records.items():
        if record.last < refused.now - _HOUR:
            continue
        seen.setdefault(knock.namespace, set()).add(knock.source)
    for inode, sources in seen.items():
        if inode in refused.names:
            yield refused.names[inode], len(sources)


def _plus(one: Drops | None, other: Drops) -> Drops:
    if one is None:
        return other
    return Drops(one.packets + other.packets, one.bytes + other.bytes)


def _grown(now: Drops, before: Drops | None) -> Drops:
    """By how much; never less than nothing."""
    if before is None:
        return now
    return Drops(max(0, now.packets - before.packets), max(0, now.bytes - before.bytes))
