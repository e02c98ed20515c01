"""The JSON of `vllmwall bans --json`, `ban --json` and `unban --json`."""

from __future__ import annotations

from vllmwall.api.typed import TypedDict

BANS_VERSION = 1


class BanJson(TypedDict):
    """One banned network. ``since`` and ``expires`` are seconds since the epoch; None: for good."""

    network: str
    since: float
    expires: float | None
    reason: str


class BansJson(TypedDict):
    """The bans in force. ``enforced`` is False where nothing is dropped, and ``problems`` say
    why; ``severed`` is how many connections the question ended."""

    version: int
    bans: list[BanJson]
    enforced: bool
    severed: int
    problems: list[str]
