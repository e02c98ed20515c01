"""The JSON of `vllmwall learn`. Imports next to nothing: the command line pays for it."""

from __future__ import annotations

from typing import Literal

from vllmwall.api.blocked_shapes import BlockedJson
from vllmwall.api.connections_shapes import ConnectionsJson
from vllmwall.api.typed import TypedDict

LEARN_VERSION = 1


class LearnFactsJson(TypedDict):
    """What the daemon tells `vllmwall learn` each time: who is connected, who was refused, who
    is a peer, and the directory of drop-ins (``conf.d``)."""

    version: int
    connections: ConnectionsJson
    blocked: BlockedJson
    peers: list[str]
    conf_d: str


class LearnedSourceJson(TypedDict):
    """One address and what was seen of it.

    ``roles`` are the internal roles that it used. ``connections`` is the most at one time,
    ``packets`` what audit mode counted. ``public``: it is no private address. ``why`` says in
    words why it is proposed, or is not.
    """

    address: str
    roles: list[str]
    workloads: list[str]
    connections: int
    packets: int
    public: bool
    decision: Literal["proposed", "peer", "left out"]
    why: str


class LearnedNetworkJson(TypedDict):
    """One network that is proposed: ``seen`` of its ``addresses`` were."""

    network: str
    seen: int
    addresses: int
    public: bool
    roles: list[str]


class LearnJson(TypedDict):
    """The answer to `vllmwall learn`: what was seen in ``seconds``, and the peers that follow.

    ``file`` is the drop-in that would hold them, ``text`` all of it, ``diff`` the unified diff
    from what is there; both empty where nothing is proposed. Nothing was applied.
    """

    version: int
    time: float
    seconds: float
    mode: Literal["enforce", "audit", "down"]
    sources: list[LearnedSourceJson]
    networks: list[LearnedNetworkJson]
    file: str
    text: str
    diff: str
    notes: list[str]
