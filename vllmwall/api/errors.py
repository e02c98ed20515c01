"""A request without arguments, and one that did not succeed, as server, client and handlers know
them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Json = Mapping[str, object]


@dataclass(frozen=True)
class NoArguments:
    """The request of a command that takes no arguments."""


class ControlError(Exception):
    """A request that did not succeed: what is wrong, and in ``hint`` what to do about it.

    ``code``: ``not-running`` (no daemon behind the socket), ``denied``, ``bad-request``,
    ``failed`` (the daemon tried; the message says why).
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__("\n".join(filter(None, (message, hint))))
        self.code = code
        self.message = message
        self.hint = hint

    def as_json(self) -> dict[str, object]:
        """The object that stands for it on the socket and under ``--json``."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint}}
