"""`vllmwall learn` looks at this each second: connections, refusals and peers at one time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllmwall.api.blocked import Blocked, BlockedRequest, blocked
from vllmwall.api.connections import Connections, connections
from vllmwall.api.errors import NoArguments
from vllmwall.engine.node_addresses import node_addresses
from vllmwall.linux.places import DROP_INS
from vllmwall.model import Address, Network

if TYPE_CHECKING:
    from vllmwall.engine.state import State


@dataclass(frozen=True, kw_only=True)
class LearnFacts:
    """Connections and refusals now, the peers, the folder ``conf.d`` for a proposal, and the
    addresses of this node."""

    version: int = 1
    connections: Connections
    blocked: Blocked
    peers: tuple[Network, ...]
    conf_d: str
    own: tuple[Address, ...] = ()


def learn(state: State, request: NoArguments) -> LearnFacts:
    """Everything that `vllmwall learn` needs of one moment."""
    return LearnFacts(
        connections=connections(state, request),
        blocked=blocked(state, BlockedRequest()),
        peers=state.reconciler.peers.networks(),
        own=tuple(node_addresses(state.reconciler)),
        conf_d=str(state.options.config.parent / DROP_INS),
    )
