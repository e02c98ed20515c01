"""What the daemon answers about the node beyond its own business: one module a subject.

A function takes the daemon and the arguments of a request, and returns the answer. It is called
from the loop, so it is quick: whatever waits (DNS, packets) happens in the process that asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from vllmwall.control import Json
from vllmwall.questions import bans, blocked, confirming, connections, events, explain, learn

if TYPE_CHECKING:
    from vllmwall.daemon import Daemon

Question = Callable[["Daemon", Json], Json]

COMMANDS: Mapping[str, Question] = {
    "bans.add": bans.ban,
    "bans.list": bans.show,
    "bans.remove": bans.unban,
    "blocked": blocked.blocked,
    "connections": connections.connections,
    "learn": learn.learn,
    "explain": explain.explain,
    "events": events.events,
    "confirm": confirming.confirm,
    "rollback": confirming.rollback,
}
"""By the name of the command, which `vllmwall.control` must know too."""
