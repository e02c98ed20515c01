"""`vllmwall learn` looks at this each second: connections, refusals and peers at one time."""

from __future__ import annotations

from vllmwall.api.blocked import blocked
from vllmwall.api.connections import connections
from vllmwall.api.errors import Json
from vllmwall.config import DROP_INS
from vllmwall.engine.state import State


def learn(state: State, _: Json) -> Json:
    """Who uses what now, and where a proposal would go."""
    return {
        "version": 1,
        "connections": connections(state, {}),
        "blocked": blocked(state, {}),
        "peers": [str(network) for network in state.reconciler.peers.networks()],
        "conf_d": str(state.options.config.parent / DROP_INS),
    }
