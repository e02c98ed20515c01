"""The JSON that leaves vllmwall, as types: what `status --json` and `plan --json` hold.

The daemon builds these values, the control socket carries them, the command line draws them.
A key never changes its meaning; new keys may be added. `schemas` publishes them as JSON schemas.
Imports next to nothing, because `vllmwall status` pays for every import.
"""

from __future__ import annotations

from typing import Literal

from vllmwall.api.typed import TypedDict

STATUS_VERSION = 1
PLAN_VERSION = 1

WallState = Literal["active", "missing", "differs", "unknown"]
RuleState = Literal["active", "missing", "none", "unknown"]


class LastPassJson(TypedDict):
    """The newest complete pass: when (seconds since the epoch), how long, what woke it."""

    at: float
    ms: float
    reason: str


class ModificationJson(TypedDict):
    """Another program's commit that modified our table, which was repaired at once."""

    at: float
    namespace: str
    pid: int
    command: str
    what: str


class DaemonJson(TypedDict):
    """The daemon itself. ``events_lost`` is how many events the kernel had to drop."""

    pid: int
    version: str
    started: float
    events: str
    events_reason: str
    events_lost: int
    modifications: list[ModificationJson]
    last_pass: LastPassJson | None
    passes: int


class BackendJson(TypedDict):
    """What enforces, and why it was chosen."""

    name: str
    reason: str


class PeerSourceJson(TypedDict):
    """One source of peers. ``expires`` is in seconds since the epoch; None: it stays."""

    name: str
    kind: str
    networks: list[str]
    error: str | None
    expires: float | None


class PeersJson(TypedDict):
    """The peers after merging, and where they come from."""

    networks: list[str]
    sources: list[PeerSourceJson]


class NamespaceJson(TypedDict):
    """One network namespace and the wall in it, as read back from the kernel just now.

    ``protection`` says what keeps other programs from changing it (``owned``, or ``watched`` and
    why). ``guarded`` are the cgroups whose guard is active in it.
    """

    inode: int
    name: str
    wall: WallState
    error: str | None
    protection: str
    guarded: list[str]
    refused_packets: int | None
    refused_bytes: int | None


class EvidenceJson(TypedDict):
    """One reason for a role."""

    kind: str
    detail: str


class ListenerJson(TypedDict):
    """One listener: what it is for, who may connect, and whether its rule is active."""

    proto: str
    addr: str
    port: int
    path: str
    namespace: int
    role: str
    audience: list[str]
    confidence: float
    evidence: list[EvidenceJson]
    rule: RuleState
    reason: str
    pids: list[int]


class GuardJson(TypedDict):
    """Whether a workload's ports were closed before they existed: ``none`` has a ``reason``."""

    state: RuleState
    cgroups: list[str]
    reason: str


class WorkloadJson(TypedDict):
    """One workload with its listeners."""

    stack: str
    name: str
    root_pid: int
    user: str
    cgroup: str
    guard: GuardJson
    listeners: list[ListenerJson]


class ConfigProblemJson(TypedDict):
    """One thing that is wrong in the configuration. ``line`` is None where it is not known."""

    file: str
    key: str
    line: int | None
    message: str


class ConfigJson(TypedDict):
    """The configuration in force. ``error`` is why a newer one was not taken."""

    files: list[str]
    loaded: float
    error: list[ConfigProblemJson] | None


class LimitsJson(TypedDict):
    """What one source may do at public API ports; None: as much as it likes."""

    new_per_second: int | None
    burst: int | None
    connections: int | None


class OrdersJson(TypedDict):
    """What was ordered beside who may connect, as configured. Whether it is active is in ``wall``
    of each namespace: a wall without it ``differs``. ``bans`` counts those in force."""

    bans: int
    lockdown: bool
    opened: list[str]
    limits: LimitsJson | None
    log_group: int | None


class StatusJson(TypedDict):
    """The answer to `vllmwall status`. ``safe`` None means that it is not known."""

    version: int
    host: str
    time: float
    mode: Literal["enforce", "audit", "down"]
    safe: bool | None
    verdict: str
    problems: list[str]
    daemon: DaemonJson | None
    backend: BackendJson
    peers: PeersJson
    namespaces: list[NamespaceJson]
    workloads: list[WorkloadJson]
    config: ConfigJson
    orders: OrdersJson


class EntryChangeJson(TypedDict):
    """One port that would be guarded, released or given another audience (``was``)."""

    change: Literal["add", "remove", "change"]
    proto: str
    addr: str
    port: int
    audience: list[str]
    was: list[str]
    note: str


class NetworkChangeJson(TypedDict):
    """Networks that an audience would win and lose."""

    audience: str
    add: list[str]
    remove: list[str]


class NamespacePlanJson(TypedDict):
    """What would change in one network namespace. ``mode`` is the wanted one, ``was`` today's.

    ``orders`` say in words what changes of lockdown, open ports, limits and the log. Bans are
    networks of the audience ``banned``.
    """

    inode: int
    name: str
    action: Literal["create", "change", "remove", "none"]
    mode: str
    was_mode: str
    entries: list[EntryChangeJson]
    networks: list[NetworkChangeJson]
    orders: list[str]


class PlanJson(TypedDict):
    """The answer to `vllmwall plan`."""

    version: int
    changes: bool
    namespaces: list[NamespacePlanJson]
    problems: list[str]
