"""What `vllmwall learn` looks at, each second: connections, refusals and peers at one time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmwall.api.blocked import blocked
from vllmwall.api.connections import connections
from vllmwall.api.server import Json
from vllmwall.config import DROP_INS

if TYPE_CHECKING:
    from vllmwall.daemon.loop import Daemon


def learn(daemon: Daemon, _: Json) -> Json:
    """Who uses what now, and where a proposal would go."""
    return {
        "version": 1,
        "connections": connections(daemon, {}),
        "blocked": blocked(daemon, {}),
        "peers": [str(network) for network in daemon.keeper.peers.networks()],
        "conf_d": str(daemon.options.config.parent / DROP_INS),
    }
