"""Networks that may not be banned, or only with --force: bans that lock the operator out. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network

from vllmwall.model import Address, Network

_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1"))


@dataclass(frozen=True)
class InUse:
    """The addresses that a ban could lock out: this node's own, its peers, and the clients of a
    failsafe port or of the ssh session that asks."""

    own: Collection[Address]
    peers: Collection[Network] = field(default=())
    clients: Collection[Address] = field(default=())


def why_never(network: Network, in_use: InUse) -> str | None:
    """Why a ban on this network is refused even with --force; None: it is not."""
    if network.prefixlen == 0:
        return f"{network} is every address; to close this host use host.lockdown"
    for one in _LOOPBACK:
        if _overlap(one, network):
            return f"{network} contains loopback addresses ({one})"
    for address in _inside(network, in_use.own):
        return f"{network} contains {address}, an address of this host"
    return None


def why_not(network: Network, in_use: InUse) -> str | None:
    """Why a ban on this network needs --force; None: it does not."""
    for address in _inside(network, in_use.clients):
        return (
            f"{network} contains {address}, which is connected to a failsafe port now (ssh): this "
            "ban may lock you out"
        )
    for peer in in_use.peers:
        if _overlap(peer, network):
            return f"{network} contains peers ({peer}); workloads here would lose them"
    return None


def _inside(network: Network, addresses: Iterable[Address]) -> list[Address]:
    return sorted(
        (one for one in addresses if one.version == network.version and one in network), key=int
    )


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)
