"""Peers that their source no longer names and that are still trusted, in words."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from vllmwall.api.units import count
from vllmwall.networks.sources import HeldPeer, PeerSource

_SHOWN = 3


def held_lines(source: PeerSource, now: float) -> Iterator[str]:
    """A line about those that wait for a time, and one about those that wait for a person."""
    lost = [one for one in source.held if one.until is None]
    if lost:
        yield (
            f"peers from {source.name}: {_networks(lost)} disappeared with more than half of the "
            "list, and are still trusted. If they are gone for good: "
            f"vllmwall peers accept-loss {quote(source.name)}"
        )
    leaving = [one for one in source.held if one.until is not None]
    if leaving:
        minutes = max(one.until - now for one in leaving if one.until is not None) / 60
        yield (
            f"peers from {source.name}: {_networks(leaving)} disappeared, and stay trusted for "
            f"another {minutes:.0f} min. To remove them now: "
            f"vllmwall peers accept-loss {quote(source.name)}"
        )


def _networks(held: list[HeldPeer]) -> str:
    names = ", ".join(str(one.network) for one in held[:_SHOWN])
    return f"{count(len(held), 'network')} ({names}{' …' if len(held) > _SHOWN else ''})"
