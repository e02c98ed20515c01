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
class PeerSource:
    """One place that peers come from.

    ``name`` is the file, the DNS name, or ``runtime``. With ``error``, ``networks`` are what
    still counts: the last good ones, or none. ``expires`` is in seconds since the epoch; None:
    it does not expire.
    """

    name: str
    kind: PeerKind
    networks: tuple[Network, ...] = ()
    error: str | None = None
    expires: float | None = None


def without_everyone(sources: Iterable[PeerSource]) -> tuple[PeerSource, ...]:
    """The sources. One that admits every address, alone or with those before it, is emptied."""
    kept: list[PeerSource] = []
    networks: list[Network] = []
    for source in sources:
        whole = everyone_in((*networks, *source.networks))
        if whole:
            error = (
                f"this would make everyone a peer ({whole[0]}), so nothing of it counts; to allow "
                "that, set peers.allow_everyone = true in the configuration"
            )
            kept.append(replace(source, networks=(), error=error))
        else:
            kept.append(source)
            networks.extend(source.networks)
    return tuple(kept)


def where_it_lies(network: Network, sources: Iterable[PeerSource]) -> str | None:
    """``10.0.0.0/24 from /etc/…`` if a source has a network that contains this one."""
    for source in sources:
        for wider in source.networks:
            if wider.version == network.version and _holds(wider, network):
                return f"{wider} from {source.name}"
    return None


def _holds(wider: Network, network: Network) -> bool:
    first, last = network.network_address, network.broadcast_address
    return first in wider and last in wider
