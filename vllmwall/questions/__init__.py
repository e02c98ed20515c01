"""What the daemon answers about the node beyond its own business: one module a subject.

A function takes the daemon and the arguments of a request, and returns the answer. It is called
from the loop, so it is quick: whatever waits (DNS, packets) happens in the process that asks.
A module is imported by the first question for it: together they are a tenth of a start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from vllmwall.control import Json

if TYPE_CHECKING:
    from vllmwall.daemon import Daemon

Question = Callable[["Daemon", Json], Json]


def _by(module: str, function: str) -> Question:
    def ask(daemon: Daemon, arguments: Json) -> Json:
        question: Question = getattr(import_module(f"{__name__}.{module}"), function)
        return question(daemon, arguments)

    return ask


COMMANDS: Mapping[str, Question] = {
    "bans.add": _by("bans", "ban"),
    "bans.list": _by("bans", "show"),
    "bans.remove": _by("bans", "unban"),
    "blocked": _by("blocked", "blocked"),
    "connections": _by("connections", "connections"),
    "learn": _by("learn", "learn"),
    "explain": _by("explain", "explain"),
    "events": _by("events", "events"),
    "confirm": _by("confirming", "confirm"),
    "rollback": _by("confirming", "rollback"),
}
"""By the name of the command, which `vllmwall.control` must know too."""
