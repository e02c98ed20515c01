"""The events that the daemon logs: one table of keys, levels and words.

A key is an interface: the JSON log, the journal's ``VLLMWALL_EVENT``, the metrics and with them
the alert rules use it, and it does not change. The words are for people and may.
"""

from __future__ import annotations

from enum import Enum, unique
from typing import Literal

Level = Literal["debug", "info", "warning", "error", "critical"]


@unique
class EventKey(Enum):
    """What can be logged. ``level`` is the log level, ``words`` what a person reads."""

    level: Level
    words: str

    def __init__(self, level: Level, words: str) -> None:
        self.level = level
        self.words = words

    @property
    def key(self) -> str:
        """The name in logs, metrics and filters: ``wall_changed``."""
        return self.name.lower()

    DAEMON_STARTED = ("info", "daemon started")
    DAEMON_STOPPED = ("info", "daemon stopped; the walls stay active")
    DAEMON_FAILED = ("critical", "the daemon failed and ends; the active walls stay")
    ALREADY_RUNNING = ("error", "another vllmwall daemon is running")
    NOT_READY = ("error", "not ready")

    WORKLOAD_APPEARED = ("info", "workload appeared")
    WORKLOAD_ENDED = ("info", "workload ended")
    LISTENER_WALLED = ("debug", "listener walled")
    LISTENER_OPENED = ("debug", "listener open to everyone")
    LISTENER_GONE = ("debug", "listener gone")
    GUARD_ACTIVE = ("info", "guard active")
    GUARD_REMOVED = ("info", "guard removed")

    WALL_CREATED = ("info", "wall created")
    WALL_CHANGED = ("info", "wall changed")
    WALL_FAILED = ("error", "the wall could not be changed; the active one stays")
    WALL_NOT_SAVED = ("error", "the wall for the next boot could not be saved")
    BIRTHS_UNREADABLE = ("warning", "what an earlier daemon saw of births cannot be read")
    WALLS_DOWN = ("warning", "walls removed on request")
    WALLS_UP = ("info", "walls restored on request")
    CONNECTIONS_RESET = ("info", "connections reset that the wall refuses")
    TABLE_MODIFIED = ("warning", "another program modified our table")
    WALL_REPAIRED = ("info", "wall repaired")

    CONFIG_LOADED = ("info", "configuration loaded")
    CONFIG_INVALID = ("error", "invalid configuration; the previous one stays active")
    CONFIG_UNUSABLE = ("error", "no usable configuration; the daemon ends, active walls stay")
    PEERS_CHANGED = ("info", "peers changed")
    PEERS_FAILED = ("error", "peers could not be read; the previous ones stay active")
    BANS_CHANGED = ("info", "bans changed")
    ADOPTED = ("warning", "hosts that were connected before the first wall are adopted or blocked")
    ADOPTED_CHANGED = ("info", "adopted hosts kept or dropped")
    ADOPTED_ENDED = ("info", "adopted hosts are blocked: their workload ended")
    APIS_CHANGED = ("info", "opened APIs changed")
    CHANGE_CONFIRMED = ("info", "change confirmed")
    CHANGE_ROLLED_BACK = ("warning", "change not confirmed in time and rolled back")

    EVENTS_LOST = ("warning", "the kernel dropped events; a full pass follows")
    PASS_FAILED = ("error", "pass failed; the active walls stay")
    EVENT_FAILED = ("error", "an event could not be handled; a full pass follows")
    REPAIR_FAILED = ("error", "a wall could not be repaired; a full pass follows")
    REQUEST_FAILED = ("error", "a request failed with an internal error")
    METRICS_FAILED = ("error", "metrics could not be served")
