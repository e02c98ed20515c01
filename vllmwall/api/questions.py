"""What the daemon answers about the node beyond its own business: one module a subject.

A function takes the daemon and the arguments of a request, and returns the answer. It is called
from the loop, so it is quick: whatever waits (DNS, packets) happens in the process that asks.
A module is imported by the first question for it: together they are a tenth of a start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from vllmwall.api.server import Json

if TYPE_CHECKING:
    from vllmwall.daemon.loop import Daemon

Question = Callable[["Daemon", Json], Json]


def _by(module: str, function: str) -> Question:
    def ask(daemon: Daemon, arguments: Json) -> Json:
        question: Question = getattr(import_module(f"vllmwall.api.{module}"), function)
        return question(daemon, arguments)

    return ask


COMMANDS: Mapping[str, Question] = {
    "bans.add": _by("bans", "ban"),
    "bans.list": _by("bans", "show"),
    "bans.remove": _by("bans", "unban"),
    "blocked": _by("blocked", "blocked"),
    "connections": _by("connections", "connections"),
    "learn": _by("learn", "learn"),
    "explain": _by("explain.question", "explain"),
    "events": _by("events", "events"),
    "confirm": _by("confirm", "confirm"),
    "rollback": _by("confirm", "rollback"),
}
"""By the name of the command, which `vllmwall.api.server` must know too."""
