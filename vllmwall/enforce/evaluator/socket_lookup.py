"""The listening socket that the kernel finds for a packet. Pure.

As inet_lookup_listener and its IPv6 brother do (net/ipv4/inet_hashtables.c, Linux 6.18): one bound
to the very address before one bound to any, and an IPv4 socket before one of both families.
"""

from __future__ import annotations

from collections.abc import Iterable

from vllmwall.model import Address, Listener


def reached(
    listeners: Iterable[Listener], proto: str, destination: Address, port: int
) -> Listener | None:
    """The listener that a packet to this address and port finds; None: none."""
    found = [
        one
        for one in listeners
        if (one.proto.value, one.port) == (proto, port) and one.reached_by(destination)
    ]
    return max(found, key=_score, default=None)


def _score(listener: Listener) -> tuple[bool, bool, int]:
    """Of equals (SO_REUSEPORT) the kernel takes any; here it is the oldest."""
    is_v4 = listener.address is not None and listener.address.version == 4
    return not listener.is_wildcard, is_v4, -listener.inode
