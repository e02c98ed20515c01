"""The table of commands: what the daemon can be asked, who may ask it, and what answers.

Server, client, command line and the tests' fake daemon all use this table. A handler gets the
daemon's state and the request's arguments; the loop calls it, so it never waits. Its module is
imported by the first request for it: together they are a tenth of the daemon's start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from vllmwall.api.errors import Json
    from vllmwall.api.later import Later
    from vllmwall.engine.state import State

    Handler = Callable[[State, Json], Json | Later]


class Access(Enum):
    """Who may ask: everyone who can open the socket (root and the control group), or root."""

    READER = "reader"
    ROOT = "root"


@dataclass(frozen=True)
class Command:
    """One row. ``handler`` is ``module:function`` below `vllmwall.api`.

    ``about_asker``: the kernel's word on the asking process becomes the argument ``pid``.
    """

    name: str
    access: Access
    handler: str
    about_asker: bool = False

    def load(self) -> Handler:
        """The function that answers; imports its module."""
        module, _, function = self.handler.partition(":")
        return cast("Handler", getattr(import_module(f"vllmwall.api.{module}"), function))


_ROWS = (
    Command("status", Access.READER, "status:status"),
    Command("plan", Access.READER, "plan:plan"),
    Command("explain", Access.READER, "explain.question:explain"),
    Command("peers.list", Access.READER, "peers:show"),
    Command("peers.add", Access.ROOT, "peers:add"),
    Command("peers.remove", Access.ROOT, "peers:remove"),
    Command("blocked", Access.READER, "blocked:blocked"),
    Command("connections", Access.READER, "connections:connections"),
    Command("learn", Access.READER, "learn:learn"),
    Command("events", Access.READER, "events:events"),
    Command("bans.list", Access.READER, "bans:show"),
    Command("bans.add", Access.ROOT, "bans:ban"),
    Command("bans.remove", Access.ROOT, "bans:unban"),
    Command("reload", Access.ROOT, "service:reload"),
    Command("up", Access.ROOT, "service:up"),
    Command("down", Access.ROOT, "service:down"),
    Command("confirm", Access.ROOT, "confirm:confirm"),
    Command("rollback", Access.ROOT, "confirm:rollback"),
    Command("guard", Access.READER, "guard:guard", about_asker=True),
    Command("snapshot", Access.READER, "snapshot:snapshot"),
)
COMMANDS: Mapping[str, Command] = {row.name: row for row in _ROWS}
