"""Events as JSON. Pure."""

from __future__ import annotations

from vllmwall.api.events_shapes import EVENTS_VERSION, EventJson, EventsJson
from vllmwall.engine.event_log import LoggedEvent, Since


def events_json(found: Since) -> EventsJson:
    """The daemon's answer."""
    return {
        "version": EVENTS_VERSION,
        "epoch": found.epoch,
        "lost": found.lost,
        "next": found.events[-1].number if found.events else found.newest,
        "newest": found.newest,
        "events": [event_json(one) for one in found.events],
    }


def event_json(one: LoggedEvent) -> EventJson:
    """One event."""
    return {
        "version": EVENTS_VERSION,
        "number": one.number,
        "time": one.time,
        "kind": one.key.key,
        "level": one.key.level,
        "namespace": one.namespace,
        "workload": one.workload,
        "detail": one.detail,
    }
