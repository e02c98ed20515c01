"""Limits for one source of packets, and the log of dropped ones: nouns of `vllmwall.model`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one source may do at a public TCP API: an IPv4 address, or an IPv6 /64.

    ``new_per_second`` connections a second on average, ``burst`` at once; ``connections`` at the
    same time. None: unlimited.
    """

    new_per_second: int | None = None
    burst: int = 20
    connections: int | None = None


@dataclass(frozen=True)
class KernelLog:
    """The NFLOG ``group`` that dropped packets are logged to, at most ``per_second``."""

    group: int
    prefix: str = "vllmwall "
    per_second: int = 5
