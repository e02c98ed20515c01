"""`vllmwall peers`: list, add and remove trusted peers, and accept that some are gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllmwall.api.errors import ControlError, NoArguments
from vllmwall.api.networks import networks_of
from vllmwall.api.status_answer import Peers
from vllmwall.cidr import Network
from vllmwall.networks.sources import PeerError

if TYPE_CHECKING:
    from vllmwall.engine.state import State


@dataclass(frozen=True)
class AddRequest:
    """Trust networks for ``seconds`` (None: for good); with ``save`` also in conf.d."""

    networks: tuple[str, ...]
    seconds: float | None = None
    save: bool = False


@dataclass(frozen=True)
class RemoveRequest:
    """Trust networks no longer; with ``save`` remove them from conf.d too."""

    networks: tuple[str, ...]
    save: bool = False


@dataclass(frozen=True)
class AcceptLossRequest:
    """Remove what these files and DNS names no longer name; none: of all of them."""

    sources: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PeersAnswer(Peers):
    """The answer to `peers list`, `peers add`, `peers remove` and `peers accept-loss`."""

    version: int = 1


def show(state: State, _: NoArguments) -> PeersAnswer:
    """The peers and their sources."""
    peers = state.reconciler.peers
    return PeersAnswer(peers.networks(), peers.sources())


def add(state: State, request: AddRequest) -> PeersAnswer:
    """Trust networks at once."""
    peers = state.reconciler.peers
    if request.save:
        return _change(state, request.networks, peers.save)
    expires = None if request.seconds is None else peers.now() + request.seconds
    return _change(state, request.networks, lambda networks: peers.add(networks, expires))


def remove(state: State, request: RemoveRequest) -> PeersAnswer:
    """Trust networks no longer."""
    peers = state.reconciler.peers
    return _change(state, request.networks, peers.forget if request.save else peers.remove)


def accept_loss(state: State, request: AcceptLossRequest) -> PeersAnswer:
    """Remove at once what sources no longer name."""
    peers = state.reconciler.peers
    return _changed(state, lambda: peers.accept_loss(request.sources))


def _change(
    state: State, texts: tuple[str, ...], change: Callable[[tuple[Network, ...]], None]
) -> PeersAnswer:
    networks = networks_of(texts)
    return _changed(state, lambda: change(networks))


def _changed(state: State, change: Callable[[], None]) -> PeersAnswer:
    try:
        change()
    except PeerError as error:
        raise ControlError("failed", str(error)) from error
    state.loop.full_pass("peers changed")
    return show(state, NoArguments())
