"""`vllmwall events`: the daemon's newest events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllmwall.engine.event_log import LoggedEvent
    from vllmwall.engine.state import State

_MOST = 500


@dataclass(frozen=True)
class EventsRequest:
    """The events after number ``after`` of ``epoch``, the oldest first; without ``after`` the
    newest ``most``. One answer has at most 500."""

    most: int = _MOST
    after: int = -1
    epoch: str = ""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event; a line of `vllmwall events --json`.

    ``number`` counts up from 1 since the daemon started and has no holes. Events that the
    follower itself reports have the number 0: ``gap`` (events were dropped before they were asked
    for), ``daemon_gone`` and ``daemon_back``. ``time`` is in seconds since the epoch.
    """

    version: int = 1
    number: int
    time: float
    kind: str
    level: str
    namespace: str = ""
    workload: str = ""
    detail: str


@dataclass(frozen=True, kw_only=True)
class Events:
    """Some events. Each run of the daemon has its own ``epoch``. ``next`` is the number to ask
    after, ``newest`` that of the newest event; ``lost`` events were dropped."""

    version: int = 1
    epoch: str
    lost: int
    next: int
    newest: int
    events: tuple[Event, ...]


def events(state: State, request: EventsRequest) -> Events:
    """The events that were asked for."""
    most, log = min(request.most, _MOST), state.event_log
    found = log.last(most) if request.after < 0 else log.since(request.after, request.epoch, most)
    return Events(
        epoch=found.epoch,
        lost=found.lost,
        next=found.events[-1].number if found.events else found.newest,
        newest=found.newest,
        events=tuple(map(_event, found.events)),
    )


def _event(one: LoggedEvent) -> Event:
    return Event(
        number=one.number,
        time=one.time,
        kind=one.key.key,
        level=one.key.level,
        namespace=one.namespace,
        workload=one.workload,
        detail=one.detail,
    )
