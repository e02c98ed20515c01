"""The metrics exporter: HTTP from the daemon's loop, and a text file.

A page is made at most once a second and in a twentieth of the time, however often it is requested.
With metrics switched off nothing is served, and prometheus_client is not imported.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from vllmwall.api.blocked import BlockedFacts, look
from vllmwall.api.metrics.definitions import MetricFacts
from vllmwall.api.metrics.http import metrics_server
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.refusals import Total
from vllmwall.linux.files import replace_file
from vllmwall.linux.loop_server import LoopServer

if TYPE_CHECKING:
    from vllmwall.config.settings import MetricsSettings
    from vllmwall.engine.state import State

_FRESH_SECONDS = 1.0
_HOUR = 3600.0
_SHARE = 20  # a page is as old as twenty times what making it took, at most once a second


class Metrics:
    """The exporter of one daemon. What of it does not work is in the state's problems."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._section: MetricsSettings | None = None
        self._server: LoopServer | None = None
        self._page = b""
        self._until = 0.0

    def descriptors(self) -> Mapping[int, int]:
        """Descriptors and the events to poll them for."""
        return self._server.descriptors() if self._server else {}

    def ready(self, descriptor: int) -> bool:
        """Serve one descriptor that poll reported; False: it is none of the metrics'."""
        return self._server is not None and self._server.ready(descriptor)

    @property
    def deadline(self) -> float:
        """When the loop has to ask for the `descriptors` again (monotonic seconds)."""
        return self._server.deadline if self._server else inf

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
                self._report("textfile", f"{section.textfile}: {error}")

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

        group = group_id(self._state.reconciler.config.control_group)
        try:
            self._server = metrics_server(section.listen, group, self.page, CONTENT_TYPE)
            self._solved("listen")
        except OSError as error:
            self._report("listen", f"{section.listen}: {error.strerror or error}")

    def _report(self, key: str, why: str) -> None:
        subject, problem = f"metrics.{key}", f"metrics: {why}"
        if self._state.problems.get(subject) != problem:
            self._state.problems[subject] = problem
            self._state.log(EventKey.METRICS_FAILED, error=why)

    def _solved(self, key: str) -> None:
        self._state.problems.pop(f"metrics.{key}", None)

    def _facts(self) -> MetricFacts:
        state = self._state
        status, refused = state.status(), look(state)
        return MetricFacts(
            status,
            state.daemon,
            state.measures,
            dict(state.event_log.counts),
            _drops(refused),
            dict(_sources(refused)),
            status.bans,
        )


def _drops(refused: BlockedFacts) -> dict[tuple[str, str], Total]:
    """By the name of the namespace and role."""
    found: dict[tuple[str, str], Total] = {}
    for (inode, role), total in refused.ledger.roles.items():
        if inode in refused.names:
            sum_ = found.setdefault((refused.names[inode], role), Total())
            sum_.add(total.packets, total.bytes)
    return found


def _sources(refused: BlockedFacts) -> Iterator[tuple[str, int]]:
    seen: dict[int, set[object]] = {inode: set() for inode in refused.names}
    for key, record in refused.ledger.records.items():
        if record.last < refused.now - _HOUR:
            continue
        seen.setdefault(key.namespace, set()).add(key.source)
    for inode, sources in seen.items():
        if inode in refused.names:
            yield refused.names[inode], len(sources)
