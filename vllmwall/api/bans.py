"""Ban, unban, and who is banned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from ipaddress import ip_address

from vllmwall.api.bans_shapes import BANS_VERSION, BansJson
from vllmwall.api.errors import ControlError, Json
from vllmwall.api.networks import networks_of
from vllmwall.decide.bannable import InUse, why_never, why_not
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.state import State
from vllmwall.linux import netlink
from vllmwall.linux.connections import decoded, handles
from vllmwall.linux.netns import run_in
from vllmwall.model import Address, Mode, Network, Proto
from vllmwall.networks.banlist import BanError
from vllmwall.observe.addresses import own_addresses

_LONGEST_REASON = 200


def show(state: State, _: Json) -> Json:
    """The bans in force."""
    return _answer(state)


def ban(state: State, arguments: Json) -> Json:
    """Ban networks at once, their connections too."""
    networks = networks_of(arguments)
    _refuse(state, networks, arguments)
    seconds = arguments.get("seconds")
    if seconds is not None and not (isinstance(seconds, int | float) and seconds > 0):
        raise ControlError("bad-request", "seconds: a number above 0 is needed")
    reason = _plain(arguments.get("reason"))
    until = float(seconds) if isinstance(seconds, int | float) else None
    return _change(state, lambda: state.reconciler.bans.add(networks, until, reason), networks)


def unban(state: State, arguments: Json) -> Json:
    """Lift bans at once."""
    networks = networks_of(arguments)
    return _change(state, lambda: state.reconciler.bans.remove(networks), networks)


def _change(state: State, change: Callable[[], None], networks: tuple[Network, ...]) -> Json:
    try:
        change()
    except BanError as error:
        raise ControlError("failed", str(error)) from error
    state.log(EventKey.BANS_CHANGED, networks=[str(one) for one in networks])
    before = state.reconciler.walls.severed
    state.reconciler.renew()
    state.loop.wake_soon("bans changed")  # which also saves the wall for the next boot
    return _answer(state, state.reconciler.walls.severed - before)


def _answer(state: State, severed: int = 0) -> BansJson:
    keeper = state.reconciler
    problems = [*keeper.bans.problems, *(text for _, text in keeper.walls.failures())]
    if keeper.down:
        problems.append("the walls are down on request: no ban counts until `vllmwall up`")
    elif keeper.policy.mode is Mode.AUDIT:
        problems.append("audit mode drops nothing: bans only count packets")
    enforced = not keeper.down and keeper.policy.mode is Mode.ENFORCE
    return {
        "version": BANS_VERSION,
        "bans": [
            {
                "network": str(one.network),
                "since": one.since,
                "expires": one.expires,
                "reason": one.reason,
            }
            for one in keeper.bans.bans()
        ],
        "enforced": enforced,
        "severed": severed,
        "problems": problems,
    }


def _refuse(state: State, networks: tuple[Network, ...], arguments: Json) -> None:
    spared = _in_use(state, arguments.get("ssh_client"))
    for network in networks:
        if never := why_never(network, spared):
            raise ControlError("failed", f"not banned: {never}")
        if (why := why_not(network, spared)) and arguments.get("force") is not True:
            raise ControlError("failed", f"not banned: {why}. If you mean it, say --force")


def _in_use(state: State, ssh_client: object) -> InUse:
    keeper = state.reconciler
    ports = {port for proto, port in keeper.policy.failsafe if proto is Proto.TCP}
    own: set[Address] = set()
    clients = set(_address(ssh_client))
    for inode in keeper.home:
        path = keeper.observer.namespaces.path(inode)
        own.update(own_addresses(path))
        clients |= run_in(path, lambda: _connected_to(ports))
    return InUse(own, keeper.peers.networks(), clients - own)


def _connected_to(ports: set[int]) -> set[Address]:
    """Who is connected to one of these TCP ports of the namespace that we are in."""
    with closing(netlink.opened(netlink.SOCK_DIAG)) as diag:
        found = [decoded(handle, uid) for handle, uid in handles(diag, ports)]
    return {one.remote for one in found if one.local_port in ports}


def _address(value: object) -> Iterator[Address]:
    if isinstance(value, str):
        with suppress(ValueError):
            address = ip_address(value.partition("%")[0])
            yield getattr(address, "ipv4_mapped", None) or address


def _plain(reason: object) -> str:
    text = reason if isinstance(reason, str) else ""
    return "".join(one for one in text if one.isprintable())[:_LONGEST_REASON]
