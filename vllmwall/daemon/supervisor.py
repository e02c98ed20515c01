"""What systemd is told: ready, reloading, alive, and one line of status (sd_notify(3))."""

from __future__ import annotations

import os
import time

from vllmwall.linux.systemd import notify

_WATCHDOG_SECONDS = 1.0


class Supervisor:
    """Tells systemd; where none listens, nothing happens."""

    def __init__(self) -> None:
        self._due = 0.0
        self._told = ""

    def feed_watchdog(self) -> None:
        """Once a second at most: a storm of events must not become a storm of messages."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _WATCHDOG_SECONDS
            notify("WATCHDOG=1")

    def tell_once(self, text: str) -> bool:
        """Not again what was told last: READY=1 once, and again after each RELOADING=1.

        True: it was news.
        """
        is_news = text != self._told
        if is_news:
            self.tell(text)
        self._told = text
        return is_news

    def tell(self, text: str) -> None:
        """Say it."""
        self._told = ""
        notify(text)


def longest_sleep() -> float:
    """Half of what the watchdog allows (systemd.service(5)); without one, as long as it takes."""
    allowed = os.environ.get("WATCHDOG_USEC", "")
    return int(allowed) / 2e6 if allowed.isdigit() and int(allowed) else 3600.0
