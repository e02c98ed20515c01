"""The messages to systemd: readiness, reloads, the watchdog and one line of status (sd_notify(3)).

The daemon reports READY=1 after it has read back the wall it applied, so units ordered After= it
start guarded. A transaction that was accepted, or a wall that cannot be read, is not enough. A
daemon that cannot see other users' processes is ready all the same: it keeps existing rules and
reports that it does not know, and neither waiting nor a restart would change that.
"""

from __future__ import annotations

import os
import time

from vllmwall.api.units import count
from vllmwall.engine.reconciler import Reconciler
from vllmwall.linux.systemd import notify
from vllmwall.model import Mode

_WATCHDOG_SECONDS = 1.0


class Readiness:
    """Notifies systemd; without systemd nothing happens."""

    def __init__(self) -> None:
        self._watchdog_due = 0.0
        self._last = ""

    def feed_watchdog(self) -> None:
        """Send at most one message a second: a storm of events is no storm of messages."""
        now = time.monotonic()
        if now >= self._watchdog_due:
            self._watchdog_due = now + _WATCHDOG_SECONDS
            notify("WATCHDOG=1")

    def reloading(self) -> None:
        """Announce a reload; systemd waits for the READY=1 after it."""
        self.send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def report(self, reconciler: Reconciler, pass_error: str | None) -> str:
        """Report the state after a pass, unless systemd has that message already.

        ``pass_error`` is why the pass failed. Returns why the daemon is not ready, if that is new;
        otherwise an empty text.
        """
        why = (pass_error or _why_not_ready(reconciler)).partition("\n")[0]
        message = f"STATUS={why}" if why else f"READY=1\nSTATUS={_summary(reconciler)}"
        if message == self._last:
            return ""
        self.send(message)
        self._last = message
        return why

    def send(self, message: str) -> None:
        """Send a message; the next report is sent whatever it is."""
        self._last = ""
        notify(message)


def longest_sleep() -> float:
    """Half of what the watchdog allows, in seconds (systemd.service(5)); an hour without one."""
    allowed = os.environ.get("WATCHDOG_USEC", "")
    return int(allowed) / 2e6 if allowed.isdigit() and int(allowed) else 3600.0


def _why_not_ready(reconciler: Reconciler) -> str:
    """Why our own wall is not active; empty when it is, or is not wanted."""
    if reconciler.down:
        return ""
    for inode in reconciler.home:
        space = reconciler.walls.spaces.get(inode)
        error = reconciler.observer.namespaces.errors.get(inode)
        if why := error or (space and (space.failure or space.error)):
            return f"the wall is not as wanted: {why}"
        if space is None or space.actual is None:
            return "no wall has been read back yet"
    return ""


def _summary(reconciler: Reconciler) -> str:
    """The line for `systemctl status`, as `vllmwall status` would begin."""
    if reconciler.down:
        return "NOT guarded: the walls are down on request (vllmwall up)"
    if reconciler.blind:
        return f"Unknown: {reconciler.blind}; existing rules are unchanged"
    workloads = reconciler.recognition.workloads
    listeners = sum(len(one.listeners) for one in workloads)
    seen = f"{count(len(workloads), 'workload')}, {count(listeners, 'listener')}"
    return (
        f"{seen} guarded" if reconciler.policy.mode is Mode.ENFORCE else f"{seen} watched (audit)"
    )
