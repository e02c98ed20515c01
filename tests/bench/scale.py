"""The sizes of a run: one worth quoting, and a quick one of a minute. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Numbers of a run; times are in seconds unless the name says otherwise."""

    name: str
    listens: int  # behind a wall, under the hammer
    poller_listens: int  # beside a poller: each lasts until the poller reacted
    reactions: int
    flushes: int
    rounds: int  # of the packet path, all servers in each
    slice_ms: int  # of one server in a round
    idle: float
    storm: float
    storms: int
    listeners: int  # of the full pass
    processes: int
    passes: int
    starts: int


FULL = Scale(
    name="full",
    listens=250,
    poller_listens=20,
    reactions=1000,
    flushes=200,
    rounds=60,
    slice_ms=50,
    idle=30,
    storm=3,
    storms=5,
    listeners=500,
    processes=2000,
    passes=15,
    starts=15,
)
QUICK = Scale(
    name="quick",
    listens=25,
    poller_listens=2,
    reactions=50,
    flushes=15,
    rounds=5,
    slice_ms=25,
    idle=2,
    storm=1,
    storms=1,
    listeners=100,
    processes=500,
    passes=3,
    starts=3,
)
