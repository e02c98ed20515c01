"""The best event source on this kernel, and why no better one is available."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vllmwall.observe.events import Event, EventsUnavailableError, TraceEvents
from vllmwall.observe.proc_connector import ConnectorEvents


@dataclass(frozen=True)
class EventSource:
    """Where hints come from (``tracefs`` or ``poll``), why, and what to read them from."""

    name: str
    reason: str
    stream: TraceEvents | ConnectorEvents | None

    def read(self) -> Iterable[Event]:
        """The events since the last call; does not wait."""
        return self.stream.read() if self.stream is not None else ()

    def lost(self) -> int:
        """How many events the kernel had to drop, as far as it counts them."""
        return self.stream.lost() if isinstance(self.stream, TraceEvents) else 0


def open_events(instance: str, poll_seconds: float) -> EventSource:
    """Tracefs, else the process connector; listeners are then looked for every
    ``poll_seconds``."""
    try:
        stream = TraceEvents(instance)
        return EventSource("tracefs", f"tracefs instance {stream.name}", stream)
    except EventsUnavailableError as error:
        reason = f"{error}; looking every {poll_seconds:g} s instead"
    try:
        return EventSource("poll", f"{reason}, exec events from the connector", ConnectorEvents())
    except EventsUnavailableError as error:
        return EventSource("poll", f"{reason}; {error}", None)
