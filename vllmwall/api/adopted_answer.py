"""The requests and answers of `vllmwall adopted`, and the part of it in the status.

Imports next to nothing: the command line pays for every import.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vllmwall.cidr import Address


@dataclass(frozen=True)
class AdoptedRequest:
    """Keep or drop what a workload adopted: its name, or the pid of its first process. Empty: what
    all of them adopted."""

    workload: str = ""


@dataclass(frozen=True)
class AdoptedHost:
    """A host that may connect. ``role`` None: to all internal listeners of the workload, else to
    those of that role."""

    address: Address
    role: str | None


@dataclass(frozen=True)
class RefusedHost:
    """A host that was connected and was not adopted: it has a public address, one of this node
    (``ours``: hosts behind NAT share it), or there were too many."""

    address: Address
    why: Literal["public", "ours", "too-many"]


@dataclass(frozen=True)
class AdoptedWorkload:
    """The connections of one workload at its first wall, ``since`` (seconds since the epoch). They
    are allowed until it ends. ``open_ports`` are those of web servers that stay open. ``refused``
    are the first of ``refusals`` hosts that were connected and are blocked now."""

    workload: str
    root_pid: int
    since: float
    hosts: tuple[AdoptedHost, ...]
    open_ports: tuple[int, ...]
    refused: tuple[RefusedHost, ...]
    refusals: int


@dataclass(frozen=True, kw_only=True)
class AdoptedAnswer:
    """The answer to `adopted list`, `keep` and `drop`. ``enabled`` is ``peers.adopt``. ``would`` is
    what enforce mode would adopt now, in audit mode. ``kept`` and ``dropped`` were just now."""

    version: int = 1
    enabled: bool
    adopted: tuple[AdoptedWorkload, ...]
    would: tuple[AdoptedWorkload, ...]
    kept: tuple[AdoptedWorkload, ...] = ()
    dropped: tuple[AdoptedWorkload, ...] = ()
    problems: tuple[str, ...] = ()
