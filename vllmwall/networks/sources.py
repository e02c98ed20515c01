"""The sources of peers: files, DNS names, configuration and commands. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from vllmwall.cidr import Network, everyone_in


class PeerError(Exception):
    """A change to the peers was refused or could not be saved; nothing was changed.

    The message says which network, why, and what to do.
    """


FetchedKind = Literal["file", "dns"]
PeerKind = Literal["static", FetchedKind, "runtime"]


@dataclass(frozen=True)
class HeldPeer:
    """A network that its source no longer names, and that still counts.

    ``until``: in seconds since the epoch; None: until `vllmwall peers accept-loss`, or until the
    source names it again.
    """

    network: Network
    until: float | None


@dataclass(frozen=True)
class PeerSource:
    """One place that peers come from.

    ``name`` is the file, the DNS name, or ``runtime``. With ``error``, ``networks`` are what
    still counts: the last good ones, or none. ``expires`` is in seconds since the epoch; None:
    it does not expire. ``held`` count beside ``networks``. ``is_complete``: it is a file that
    ends with the line ``# end``.
    """

    name: str
    kind: PeerKind
    networks: tuple[Network, ...] = ()
    error: str | None = None
    expires: float | None = None
    held: tuple[HeldPeer, ...] = ()
    is_complete: bool = False

    def counted(self) -> tuple[tuple[Network, float | None], ...]:
        """Its networks and the held ones, each with the time at which it ends."""
        return (
            *((network, self.expires) for network in self.networks),
            *((one.network, one.until) for one in self.held),
        )


def without_everyone(sources: Iterable[PeerSource]) -> tuple[PeerSource, ...]:
    """The sources. One that admits every address, alone or with those before it, is emptied."""
    kept: list[PeerSource] = []
    networks: list[Network] = []
    for source in sources:
        counted = [network for network, _ in source.counted()]
        whole = everyone_in((*networks, *counted))
        if whole:
            error = (
                f"this would make everyone a peer ({whole[0]}), so nothing of it counts; to allow "
                "that, set peers.allow_everyone = true in the configuration"
            )
            kept.append(replace(source, networks=(), held=(), error=error))
        else:
            kept.append(source)
            networks.extend(counted)
    return tuple(kept)


def where_it_lies(network: Network, sources: Iterable[PeerSource]) -> str | None:
    """``10.0.0.0/24 from /etc/…`` if a source has a network that contains this one."""
    for source in sources:
        for wider, _ in source.counted():
            if wider.version == network.version and _holds(wider, network):
                return f"{wider} from {source.name}"
    return None


def _holds(wider: Network, network: Network) -> bool:
    first, last = network.network_address, network.broadcast_address
    return first in wider and last in wider
