"""The JSON of `vllmwall watch --json`: one look."""

from __future__ import annotations

from vllmwall.api.events_shapes import EventJson
from vllmwall.api.shapes import StatusJson
from vllmwall.api.typed import TypedDict

WATCH_VERSION = 1


class WatchJson(TypedDict):
    """One look. ``refused_per_second`` are packets since the look before; None: there was none."""

    version: int
    time: float
    refused_per_second: float | None
    status: StatusJson
    events: list[EventJson]
