"""Whom no ban may hit, and whom only a forced one: three ways to lock oneself out. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network

from vllmwall.model import Address, Network

_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1"))


@dataclass(frozen=True)
class Spared:
    """Who is on this node now: its own addresses, its peers, and who is connected to a failsafe
    port or asks from an ssh session."""

    own: Collection[Address]
    peers: Collection[Network] = field(default=())
    clients: Collection[Address] = field(default=())


def why_never(network: Network, spared: Spared) -> str | None:
    """Why a ban on this network is refused, forced or not; None: it is not."""
    if network.prefixlen == 0:
        return f"{network} is everyone; to close this host use host.lockdown"
    for one in _LOOPBACK:
        if _overlap(one, network):
            return f"{network} holds loopback addresses ({one})"
    for address in _inside(network, spared.own):
        return f"{network} holds {address}, an address of this host"
    return None


def why_not(network: Network, spared: Spared) -> str | None:
    """Why a ban on this network has to be forced; None: it has not."""
    for address in _inside(network, spared.clients):
        return (
            f"{network} holds {address}, which is connected to a failsafe port now (ssh): you may "
            "be banning yourself"
        )
    for peer in spared.peers:
        if _overlap(peer, network):
            return f"{network} holds peers ({peer}); workloads here would lose them"
    return None


def _inside(network: Network, addresses: Iterable[Address]) -> list[Address]:
    return sorted(
        (one for one in addresses if one.version == network.version and one in network), key=int
    )


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)
