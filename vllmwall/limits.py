"""What an operator orders beside who may connect: limits on the API, and the kernel's log.

Frozen values that `vllmwall.model` builds on; imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one source may do at a public API over TCP: an IPv4 address, or an IPv6 /64.

    ``new_per_second`` connections a second for long, ``burst`` at once; ``connections`` at the
    same time. None: as many as it likes.
    """

    new_per_second: int | None = None
    burst: int = 20
    connections: int | None = None


@dataclass(frozen=True)
class KernelLog:
    """Where the kernel tells of refused packets: NFLOG ``group``, ``per_second`` at most."""

    group: int
    prefix: str = "vllmwall "
    per_second: int = 5
