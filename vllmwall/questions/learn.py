"""What `vllmwall learn` looks at, each second: connections, refusals and peers at one time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmwall.config import DROP_INS
from vllmwall.control import Json
from vllmwall.questions.blocked import blocked
from vllmwall.questions.connections import connections

if TYPE_CHECKING:
    from vllmwall.daemon import Daemon


def learn(daemon: Daemon, _: Json) -> Json:
    """Who uses what now, and where a proposal would go."""
    return {
        "version": 1,
        "connections": connections(daemon, {}),
        "blocked": blocked(daemon, {}),
        "peers": [str(network) for network in daemon.keeper.peers.networks()],
        "conf_d": str(daemon.options.config.parent / DROP_INS),
    }
