"""The order of the operator (ban, limit, lockdown) that refused a packet. Pure."""

from __future__ import annotations

from vllmwall.cidr import NetworkSet
from vllmwall.enforce.nftables.names import BANNED, LIMITED, LOCKDOWN
from vllmwall.model import Address, Proto, Wall

NAMES = {BANNED: "ban", LIMITED: "limit", LOCKDOWN: "lockdown"}
"""The names of the orders for people, by chain."""


class OrdersOf:
    """The orders of the actual wall, indexed for many packets."""

    def __init__(self, wall: Wall) -> None:
        self._banned = NetworkSet(wall.banned)
        self._limited = {(one.family, one.proto, one.port) for one in wall.entries if one.limited}
        self._known = {(one.family, one.proto, one.port) for one in wall.entries}
        self._lockdown = wall.lockdown

    def behind(self, source: Address, proto: Proto, port: int) -> str:
        """``ban``, ``limit`` or ``lockdown``; empty: the audience of a workload's listener."""
        if source in self._banned:
            return NAMES[BANNED]
        place = (source.version, proto, port)
        if place in self._limited:
            return NAMES[LIMITED]
        return NAMES[LOCKDOWN] if self._lockdown and place not in self._known else ""
