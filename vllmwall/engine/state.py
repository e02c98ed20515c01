"""The part of the daemon that commands may read, and the few things that they may start.

The daemon fills it in; commands, metrics and the status get it instead of the daemon itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from vllmwall.config.reading import Reading
from vllmwall.config.settings import Settings
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.event_log import EventLog
from vllmwall.engine.facts import ConfigFacts, DaemonFacts, Reservation, ReservationKind
from vllmwall.engine.histograms import Measures
from vllmwall.engine.log import Logger
from vllmwall.engine.options import DOWN_MARKER, Options
from vllmwall.engine.reconciler import Reconciler
from vllmwall.engine.refusals import Ledger
from vllmwall.engine.status_facts import StatusFacts


class Loop(Protocol):
    """The verbs of the daemon's loop that a command may use."""

    def full_pass(self, reason: str) -> None:
        """Run a full pass now. Raises nothing: a failure is logged and in the status."""

    def wake_soon(self, reason: str, seconds: float = 0.0) -> None:
        """Run a full pass in ``seconds`` at the latest."""

    def count_lost_events(self) -> None:
        """Keep `State.reservations` and the number of lost events up to date."""

    def follow_events(self) -> None:
        """Follow the events that came meanwhile: for work that takes more than a millisecond."""

    def read_config(self, done: Callable[[Reading], None], is_wanted: Callable[[], bool]) -> bool:
        """Have ``done`` called with the configuration on disk. False: too many requests wait."""

    def reload(self, request: ReloadRequest) -> bool:
        """Read the configuration again and apply it. False: too many requests wait."""


@dataclass(frozen=True)
class ReloadRequest:
    """A request to put a configuration in force: the one on disk, or ``settings``.

    ``check`` may raise to refuse it; ``done`` gets what was raised, the ConfigError, or None. A
    request that is not wanted any more is dropped.
    """

    done: Callable[[Exception | None], None] = lambda error: None
    check: Callable[[Settings], None] = lambda settings: None
    is_wanted: Callable[[], bool] = lambda: True
    settings: Settings | None = None


@dataclass
class State:
    """The daemon as commands see it.

    ``daemon`` and ``config`` are replaced whenever they change. ``problems`` are the daemon's own,
    by subject (``save``, ``metrics.listen``), ``reservations`` what it knows against "safe", by
    kind. ``on_trial`` is the configuration that
    comes back unless the one in force is confirmed; None: nothing is on trial.
    """

    options: Options
    log: Logger
    event_log: EventLog
    reconciler: Reconciler
    loop: Loop
    daemon: DaemonFacts
    config: ConfigFacts
    measures: Measures = field(default_factory=Measures)
    refusals: Ledger = field(default_factory=lambda: Ledger(time.time()))
    problems: dict[str, str] = field(default_factory=dict)
    reservations: dict[ReservationKind, Reservation] = field(default_factory=dict)
    on_trial: Settings | None = None

    def status(self) -> StatusFacts:
        """Everything that `status` shows, read back from the kernel now."""
        self.loop.count_lost_events()
        facts = self.reconciler.status(
            time.time(), self.problems.values(), self.reservations.values()
        )
        config = replace(self.config, files=facts.config.files)
        return replace(facts, daemon=self.daemon, config=config)

    def set_down(self, *, is_down: bool) -> list[int]:
        """Remove all walls and keep them removed, or put them up again.

        The choice outlives the daemon, until the node boots. Returns the namespaces (inodes)
        whose wall was removed.
        """
        marker = self.options.runtime_dir / DOWN_MARKER
        removed: list[int] = []
        if is_down:
            marker.touch()
            removed = self.reconciler.take_down()
            name = self.reconciler.observer.namespaces.name
            names = [name(inode) for inode in removed]
            self.log(EventKey.WALLS_DOWN, namespaces=names)
        else:
            marker.unlink(missing_ok=True)
            self.reconciler.down = False
            self.log(EventKey.WALLS_UP)
        self.loop.full_pass("down" if is_down else "up")
        return removed
