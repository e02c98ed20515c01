"""`vllmwall peers`: list, add and remove trusted peers."""

from __future__ import annotations

from collections.abc import Callable

from vllmwall.api.change_shapes import CHANGES_VERSION
from vllmwall.api.errors import ControlError, Json
from vllmwall.api.networks import networks_of
from vllmwall.api.status import peers_json
from vllmwall.engine.state import State
from vllmwall.model import Network
from vllmwall.networks import PeerError


def show(state: State, _: Json) -> Json:
    """The peers and their sources."""
    peers = state.reconciler.peers
    return {
        "peers": {"version": CHANGES_VERSION, **peers_json(peers.networks(), peers.sources())},
    }


def add(state: State, arguments: Json) -> Json:
    """Trust networks at once: for ``seconds``, for good, or with ``save`` in conf.d."""
    peers = state.reconciler.peers
    seconds = arguments.get("seconds")
    if arguments.get("save"):
        return _change(state, arguments, peers.save)
    expires = peers.now() + seconds if isinstance(seconds, int | float) else None
    return _change(state, arguments, lambda networks: peers.add(networks, expires))


def remove(state: State, arguments: Json) -> Json:
    """Remove networks from the runtime peers, with ``save`` from conf.d too."""
    peers = state.reconciler.peers
    return _change(state, arguments, peers.forget if arguments.get("save") else peers.remove)


def _change(state: State, arguments: Json, change: Callable[[tuple[Network, ...]], None]) -> Json:
    networks = networks_of(arguments)
    try:
        change(networks)
    except PeerError as error:
        raise ControlError("failed", str(error)) from error
    state.loop.full_pass("peers changed")
    return show(state, {})
