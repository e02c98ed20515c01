"""Reloads of the configuration that never hold the loop.

A helper process reads the files and a thread asks DNS; only then the new settings are applied, in
one step, so that no pass sees new settings without their peers. Requests that come while a reload
runs share the next one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from vllmwall.config import ConfigError
from vllmwall.config.reading import ConfigReader, Reading
from vllmwall.config.settings import Settings
from vllmwall.engine.state import ReloadRequest
from vllmwall.networks.peerlist import PeerList
from vllmwall.networks.sources import PeerSource

_DNS_SECONDS = 2.0  # later answers come with a pass of their own
_MOST_REQUESTS = 64


class Reloader:
    """Runs one reload at a time.

    ``apply`` gets the settings and the networks of its peer files and names (None: not known yet),
    ``refuse`` the error of a configuration that cannot be used. ``wake`` has the loop call
    `advance`; it is called from a thread.
    """

    def __init__(
        self,
        reader: ConfigReader,
        peers: PeerList,
        apply: Callable[[Settings, tuple[PeerSource, ...] | None], None],
        refuse: Callable[[ConfigError], None],
        wake: Callable[[], None],
    ) -> None:
        self._reader = reader
        self._peers = peers
        self._apply = apply
        self._refuse = refuse
        self._wake = wake
        self._waiting: list[ReloadRequest] = []
        self._served: list[ReloadRequest] = []
        self._pending: _Pending | None = None

    def request(self, request: ReloadRequest) -> bool:
        """Reload soon. False: too many requests wait already."""
        if len(self._waiting) >= _MOST_REQUESTS:
            return False
        self._waiting.append(request)
        if not self._served:
            self._start()
        return True

    @property
    def deadline(self) -> float | None:
        """When `advance` must be called at the latest (monotonic seconds); None: no need."""
        return self._pending.deadline if self._pending else None

    def advance(self) -> None:
        """Apply the settings when DNS has answered or has taken too long."""
        pending = self._pending
        if pending and (pending.answers is not None or time.monotonic() >= pending.deadline):
            self._pending = None
            self._apply(pending.settings, pending.answers)
            self._finish(None)

    def _start(self) -> None:
        self._served = []
        if self._waiting and (settings := self._waiting[0].settings):
            self._served = [self._waiting.pop(0)]
            self._ask_dns(settings)
        elif self._waiting:
            self._join()
            if not self._reader.request(self._check, self._is_wanted):
                self._finish(BlockingIOError("too many requests wait for the configuration"))

    def _join(self) -> None:
        while self._waiting and self._waiting[0].settings is None:
            self._served.append(self._waiting.pop(0))

    def _is_wanted(self) -> bool:
        """Before anything is read: later requests join, those of clients that left are dropped."""
        self._join()
        self._served = [one for one in self._served if one.is_wanted()]
        is_wanted = bool(self._served)
        if not is_wanted:  # what waits, if anything, brings its settings
            self._start()
        return is_wanted

    def _check(self, reading: Reading) -> None:
        try:
            settings = reading.usable()
        except ConfigError as error:
            self._refuse(error)
            self._finish(error)
            return
        self._served = [one for one in self._served if _passes(one, settings)]
        if self._served:
            self._ask_dns(settings)
        else:
            self._start()

    def _ask_dns(self, settings: Settings) -> None:
        pending = self._pending = _Pending(settings, time.monotonic() + _DNS_SECONDS)

        def fetch() -> None:
            pending.answers = self._peers.fetch(settings.peers)
            self._wake()

        # If the kernel refuses another thread, the settings are applied at the deadline.
        with suppress(RuntimeError):
            threading.Thread(target=fetch, name="reload", daemon=True).start()

    def _finish(self, error: Exception | None) -> None:
        served, self._served = self._served, []
        for one in served:
            one.done(error)
        self._start()


@dataclass
class _Pending:
    """Settings that wait for DNS, until ``deadline`` (monotonic seconds)."""

    settings: Settings
    deadline: float
    answers: tuple[PeerSource, ...] | None = None


def _passes(request: ReloadRequest, settings: Settings) -> bool:
    if not request.is_wanted():
        return False
    try:
        request.check(settings)
    except Exception as error:
        request.done(error)
        return False
    return True
