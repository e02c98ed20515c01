"""The answer to `vllmwall status`.

Imports next to nothing: the command line pays for every import.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vllmwall.api.adopted_answer import AdoptedWorkload
from vllmwall.cidr import Network
from vllmwall.engine.facts import BackendFacts, ConfigProblem, DaemonFacts, Reservation
from vllmwall.networks.sources import PeerSource

WallState = Literal["active", "missing", "differs", "none", "unknown"]
RuleState = Literal["active", "missing", "none", "unknown"]

UNPROVEN = "looks like a web server and is not proven to be an API"
"""The ``reason`` of a listener that only peers reach and that clients may wait for."""


@dataclass(frozen=True)
class Peers:
    """The peers after merging, and where they come from."""

    networks: tuple[Network, ...]
    sources: tuple[PeerSource, ...]


@dataclass(frozen=True)
class NamespaceStatus:
    """One network namespace and the wall in it, as read back from the kernel just now.

    ``wall`` is ``none`` where none is wanted and there is none: the walls are down.
    ``protection`` says what keeps other programs from changing it (``owned``, or ``watched`` and
    why). ``guarded`` are the cgroups whose guard is active in it. The counters are what the wall
    refused since it was created; None: not known.
    """

    inode: int
    name: str
    wall: WallState
    error: str | None
    protection: str
    guarded: tuple[str, ...]
    refused_packets: int | None
    refused_bytes: int | None


@dataclass(frozen=True)
class RoleEvidence:
    """One reason for a role, as `vllmwall.model.Evidence` holds it."""

    kind: str
    detail: str


@dataclass(frozen=True)
class ClientLimits:
    """The limits of one source at public API ports, as `vllmwall.model.Limits` holds them."""

    new_per_second: int | None
    burst: int
    connections: int | None


@dataclass(frozen=True)
class ListenerStatus:
    """One listener: what it is for, who may connect, and whether its rule is active.

    ``path`` is a unix socket's. ``reason`` says why it has no rule, or is not open.
    """

    proto: str
    addr: str
    port: int
    path: str
    namespace: int
    role: str
    audience: tuple[str, ...]
    confidence: float
    evidence: tuple[RoleEvidence, ...]
    rule: RuleState
    reason: str
    pids: tuple[int, ...]


@dataclass(frozen=True)
class GuardStatus:
    """Whether a workload's ports were closed before they existed: ``none`` has a ``reason``."""

    state: RuleState
    cgroups: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class WorkloadStatus:
    """One workload with its listeners."""

    stack: str
    name: str
    root_pid: int
    user: str
    cgroup: str
    guard: GuardStatus
    listeners: tuple[ListenerStatus, ...]


@dataclass(frozen=True)
class ConfigStatus:
    """The active configuration. ``loaded`` is in seconds since the epoch; ``error`` is what is
    wrong with a newer one; None: nothing."""

    files: tuple[str, ...]
    loaded: float
    error: tuple[ConfigProblem, ...] | None


@dataclass(frozen=True)
class OperatorRules:
    """What was ordered beside workloads: how many bans, lockdown and its open ports, the limits at
    public API ports (None: none), and the NFLOG group of refused packets (None: no log)."""

    bans: int
    lockdown: bool
    opened: tuple[str, ...]
    limits: ClientLimits | None
    log_group: int | None


@dataclass(frozen=True, kw_only=True)
class Status:
    """The answer to `vllmwall status`. ``safe`` None means that it is not known: a wall could not
    be read, or there are ``reservations``."""

    version: int = 1
    host: str
    time: float
    mode: Literal["enforce", "audit", "down"]
    safe: bool | None
    verdict: str
    problems: tuple[str, ...]
    reservations: tuple[Reservation, ...]
    daemon: DaemonFacts | None
    backend: BackendFacts
    peers: Peers
    namespaces: tuple[NamespaceStatus, ...]
    workloads: tuple[WorkloadStatus, ...]
    config: ConfigStatus
    orders: OperatorRules
    adopted: tuple[AdoptedWorkload, ...] = ()
