"""The daemon's answer for `vllmwall learn`."""

from __future__ import annotations

from vllmwall.api.blocked_shapes import BlockedJson
from vllmwall.api.connections_shapes import ConnectionsJson
from vllmwall.api.typed import TypedDict


class LearnFactsJson(TypedDict):
    """Connections, blocked sources and peers at one time, and the directory of drop-ins."""

    version: int
    connections: ConnectionsJson
    blocked: BlockedJson
    peers: list[str]
    conf_d: str
