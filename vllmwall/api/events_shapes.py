"""The JSON of `vllmwall events`: one object a line."""

from __future__ import annotations

from vllmwall.api.typed import TypedDict

EVENTS_VERSION = 1


class EventJson(TypedDict):
    """One event; a line of `vllmwall events --json`.

    ``number`` counts up from 1 since the daemon started and has no holes; a line of the kind
    ``gap`` says how many events were dropped before they were asked for, ``daemon_gone`` and
    ``daemon_back`` what the follower saw of the daemon itself: their ``number`` is 0. ``time`` is
    in seconds since the epoch.
    """

    version: int
    number: int
    time: float
    kind: str
    level: str
    namespace: str
    workload: str
    detail: str


class EventsJson(TypedDict):
    """The daemon's answer. ``epoch`` is another one for another run of the daemon, ``next`` the
    number to ask after, ``newest`` that of the newest event, ``lost`` were dropped."""

    version: int
    epoch: str
    lost: int
    next: int
    newest: int
    events: list[EventJson]
