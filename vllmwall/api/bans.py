"""`vllmwall ban`, `unban` and `bans`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from vllmwall.api.errors import ControlError, NoArguments
from vllmwall.api.networks import NetworksRequest, networks_of
from vllmwall.decide.bannable import InUse, why_never, why_not
from vllmwall.engine.event_keys import EventKey
from vllmwall.linux import netlink
from vllmwall.linux.connections import decoded, handles
from vllmwall.linux.netns import run_in
from vllmwall.model import Address, Mode, Network, Proto
from vllmwall.networks.banlist import Ban, BanError
from vllmwall.observe.addresses import own_addresses

if TYPE_CHECKING:
    from vllmwall.engine.state import State

_LONGEST_REASON = 200


@dataclass(frozen=True)
class BanRequest:
    """Ban networks for ``seconds`` (None: for good).

    ``ssh_client`` is the address from which the asking user is connected by ssh, empty without
    ssh: only ``force`` bans it, and peers.
    """

    networks: tuple[str, ...]
    ssh_client: str
    seconds: float | None = None
    reason: str = ""
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class Bans:
    """The active bans. ``enforced`` is False where nothing is dropped; ``problems`` say why.
    ``severed`` is how many connections this request reset."""

    version: int = 1
    bans: tuple[Ban, ...]
    enforced: bool
    severed: int
    problems: tuple[str, ...]


def show(state: State, _: NoArguments) -> Bans:
    """The active bans."""
    return _answer(state)


def ban(state: State, request: BanRequest) -> Bans:
    """Ban networks at once and reset their connections."""
    networks = networks_of(request.networks)
    _refuse(state, networks, request)
    if request.seconds is not None and not request.seconds > 0:
        raise ControlError("bad-request", "seconds: a number above 0 is needed")
    reason = "".join(one for one in request.reason if one.isprintable())[:_LONGEST_REASON]
    bans = state.reconciler.bans
    return _change(state, lambda: bans.add(networks, request.seconds, reason), networks)


def unban(state: State, request: NetworksRequest) -> Bans:
    """Remove bans at once."""
    networks = networks_of(request.networks)
    return _change(state, lambda: state.reconciler.bans.remove(networks), networks)


def _change(state: State, change: Callable[[], None], networks: tuple[Network, ...]) -> Bans:
    try:
        change()
    except BanError as error:
        raise ControlError("failed", str(error)) from error
    state.log(EventKey.BANS_CHANGED, networks=[str(one) for one in networks])
    before = state.reconciler.walls.severed
    state.reconciler.renew()
    state.loop.wake_soon("bans changed")  # which also saves the wall for the next boot
    return _answer(state, state.reconciler.walls.severed - before)


def _answer(state: State, severed: int = 0) -> Bans:
    reconciler = state.reconciler
    enforced = not reconciler.down and reconciler.policy.mode is Mode.ENFORCE
    problems = [*reconciler.bans.problems, *(text for _, text in reconciler.walls.failures())]
    if reconciler.down:
        problems.append("the walls are down on request: no ban counts until `vllmwall up`")
    elif not enforced:
        problems.append("audit mode drops nothing: bans only count packets")
    return Bans(
        bans=reconciler.bans.bans(),
        enforced=enforced,
        severed=severed,
        problems=tuple(problems),
    )


def _refuse(state: State, networks: tuple[Network, ...], request: BanRequest) -> None:
    spared = _in_use(state, request.ssh_client)
    for network in networks:
        if never := why_never(network, spared):
            raise ControlError("failed", f"not banned: {never}")
        if (why := why_not(network, spared)) and not request.force:
            raise ControlError("failed", f"not banned: {why}", "To ban it, use --force.")


def _in_use(state: State, ssh_client: str) -> InUse:
    reconciler = state.reconciler
    ports = {port for proto, port in reconciler.policy.failsafe if proto is Proto.TCP}
    own: set[Address] = set()
    clients = set(_address(ssh_client))
    for inode in reconciler.home:
        path = reconciler.observer.namespaces.path(inode)
        own.update(own_addresses(path))
        clients |= run_in(path, lambda: _connected_to(ports))
    return InUse(own, reconciler.peers.networks(), clients - own)


def _connected_to(ports: set[int]) -> set[Address]:
    """Who is connected to one of these TCP ports of the namespace that we are in."""
    with closing(netlink.opened(netlink.SOCK_DIAG)) as diag:
        found = [decoded(handle, uid) for handle, uid in handles(diag, ports)]
    return {one.remote for one in found if one.local_port in ports}


def _address(text: str) -> Iterator[Address]:
    with suppress(ValueError):
        address = ip_address(text.partition("%")[0])
        yield getattr(address, "ipv4_mapped", None) or address
