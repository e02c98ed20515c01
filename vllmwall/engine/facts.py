"""Facts about the daemon itself, as `status` publishes them.

Imports nothing of ours: the command line reads them too, and pays for every import.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ReservationKind = Literal[
    "pass-failed",
    "events-lost",
    "processes-left-out",
    "filtered-elsewhere",
    "shared-peer",
    "held-outside",
    "gpu-processes-not-known",
    "answers-dropped",
    "own-packets-blocked",
]


@dataclass(frozen=True)
class Reservation:
    """One reason why packets may get past walls that are active as wanted: the node is not "safe".

    ``kind`` is stable, for scripts and the metric. ``where`` is the namespace, workload or process;
    ``what`` is wrong there, without a full stop; ``remedy`` is a sentence of its own.
    """

    kind: ReservationKind
    where: str
    what: str
    remedy: str

    @property
    def line(self) -> str:
        """For people, in one line."""
        return f"{self.where}: {self.what}. {self.remedy}"


@dataclass(frozen=True)
class PassFacts:
    """One complete pass: when (seconds since the epoch), how long (ms), what woke it."""

    at: float
    ms: float
    reason: str


@dataclass(frozen=True)
class ModificationFacts:
    """A commit of another program that modified our table. ``at`` is in seconds since the epoch;
    ``what`` is what the commit did."""

    at: float
    namespace: str
    pid: int
    command: str
    what: str


@dataclass(frozen=True)
class DaemonFacts:
    """The daemon itself. ``events`` is ``tracefs`` or ``poll``; ``events_lost`` is how many the
    kernel had to drop. ``modifications`` are the newest ones, the oldest first."""

    pid: int
    version: str
    started: float
    events: str
    events_reason: str
    last_pass: PassFacts | None = None
    passes: int = 0
    events_lost: int = 0
    modifications: tuple[ModificationFacts, ...] = ()


@dataclass(frozen=True)
class BackendFacts:
    """What enforces, and why it was chosen."""

    name: str
    reason: str = ""


@dataclass(frozen=True)
class ConfigProblem:
    """One thing that is wrong in a configuration file."""

    file: str
    key: str
    message: str
    line: int | None = None


@dataclass(frozen=True)
class ConfigFacts:
    """The configuration in force, and the problems of a newer one that was not taken."""

    files: tuple[str, ...] = ()
    loaded: float = 0.0
    problems: tuple[ConfigProblem, ...] = ()
