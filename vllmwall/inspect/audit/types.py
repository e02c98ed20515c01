"""The types of an audit: the facts about a workload, and the findings.

They never hold a secret: `collect` replaces its value by `SET`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from vllmwall.model import Listener, Role, Stack
from vllmwall.recognize.commandline import Flags

AUDIT_VERSION = 1

SET = "<set>"
"""Replaces the value of a secret."""


class Severity(str, Enum):
    """How bad it is, the mildest first."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Higher is worse."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class Place:
    """A listener of the workload. ``walled``: a rule of ours blocks strangers from it."""

    role: Role
    listener: Listener
    walled: bool = False


@dataclass(frozen=True)
class Environment:
    """The variables that checks read.

    ``complete`` is False where some may be missing: the process renamed itself and overwrote
    them, or cannot be read.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    complete: bool = False


@dataclass(frozen=True)
class CommandLine:
    """The flags that checks read, and the names of those that hold a secret in clear text.

    ``complete`` is False where the process renamed itself, names a settings file that cannot be
    read, or is not a server with known flags. ``readable``: it has not renamed itself.
    """

    flags: Flags = field(default_factory=lambda: Flags({}))
    complete: bool = False
    secrets: tuple[str, ...] = ()
    readable: bool = False


@dataclass(frozen=True)
class Confinement:
    """The confinement of the process, as the host sees it.

    ``capabilities`` are the effective and the bounding set as bit masks (linux/capability.h);
    ``all_capabilities`` is every one that this kernel has. ``seccomp`` is 0 where there is no
    filter. ``runtime_sockets`` are paths inside the container. ``container`` is False for a
    process of the host itself.
    """

    uid: int | None = None
    container: bool = False
    own_users: bool = False
    effective: int = 0
    bounding: int = 0
    all_capabilities: int = 0
    no_new_privileges: bool = True
    seccomp: int | None = None
    writable_root: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    runtime_sockets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weights:
    """The files of a served model on this node.

    ``directory`` is empty where the model comes from a hub and was not found in its cache.
    ``wrong`` are the files that failed their checksum or are not in the file; None: not checked.
    ``multimodal`` is None where the model's config.json could not be read.
    """

    directory: str = ""
    pickles: tuple[str, ...] = ()
    safetensors: bool = False
    writable: tuple[str, ...] = ()
    wrong: tuple[str, ...] | None = None
    multimodal: bool | None = None


@dataclass(frozen=True)
class Subject:
    """One server process of a workload, with everything that checks need.

    ``part`` is its part in the stack (``serve``, ``proxy``…); empty where no server process could
    be identified: the pid is then the root's, and flags are unknown.
    ``versions`` are of the packages installed in its environment. ``public`` is a global
    address of the node on which the API answers. ``networks`` are the node's interfaces that
    have an address of their own. ``proxies`` are reverse proxies in the same namespace.
    ``ray_auth_mode`` is RAY_AUTH_MODE of a Ray node's own processes, empty where it is not set;
    None: no Ray node, or it could not be read.
    """

    workload: str
    stack: Stack
    pid: int
    part: str = ""
    model: str = ""
    command: CommandLine = field(default_factory=CommandLine)
    environment: Environment = field(default_factory=Environment)
    places: tuple[Place, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    public: str = ""
    networks: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    confinement: Confinement | None = None
    weights: Weights | None = None
    rdma: tuple[str, ...] = ()
    allowed_models: tuple[str, ...] = ()
    ray_auth_mode: str | None = None

    def of_role(self, role: Role) -> tuple[Place, ...]:
        """Its listeners of one role."""
        return tuple(place for place in self.places if place.role is role)

    @property
    def exposed_api(self) -> tuple[Place, ...]:
        """The API's listeners that are not on loopback."""
        return tuple(one for one in self.of_role(Role.API) if not one.listener.is_loopback)


@dataclass(frozen=True)
class Unclear:
    """A check that could not be made, with the reason. Never a finding."""

    reason: str


@dataclass(frozen=True)
class Match:
    """The result of a check that found something: ``what`` for people, and the listeners concerned.

    ``at_most`` limits the rule's severity where the facts are uncertain.
    """

    what: str
    places: tuple[Place, ...] = ()
    at_most: Severity = Severity.CRITICAL


CheckResult = Match | Unclear | None


@dataclass(frozen=True)
class Finding:
    """Something to change. ``seen`` never holds a secret."""

    id: str
    severity: Severity
    workload: str
    stack: Stack
    pid: int
    title: str
    seen: str
    why: str
    remedy: str
    source: str


@dataclass(frozen=True)
class Unchecked:
    """A check that could not be made for a workload. Neither a finding nor its absence."""

    id: str
    workload: str
    pid: int
    reason: str


@dataclass(frozen=True)
class Audit:
    """The whole result. ``accepted`` are findings that the configuration accepts."""

    findings: tuple[Finding, ...] = ()
    unchecked: tuple[Unchecked, ...] = ()
    accepted: tuple[Finding, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Counts:
    """The number of findings of each severity."""

    critical: int = 0
    high: int = 0
    medium: int = 0
    low: int = 0
    info: int = 0


@dataclass(frozen=True)
class AuditAnswer:
    """The answer of `vllmwall audit`. ``failed``: a finding is as severe as ``fail_on`` or more.

    ``time`` is in seconds since the epoch. ``daemon`` is True where a daemon reported its walls;
    without one every port counts as open. ``accepted`` are findings that the configuration accepts.
    A workload may have several server processes, as a Ray node has. ``advisories`` is the date of
    the table of known vulnerabilities, as YYYY-MM-DD: later ones are not looked for.
    """

    version: int
    host: str
    time: float
    advisories: str
    daemon: bool
    workloads: int
    servers: int
    fail_on: str
    failed: bool
    counts: Counts
    findings: tuple[Finding, ...]
    accepted: tuple[Finding, ...]
    unchecked: tuple[Unchecked, ...]
    problems: tuple[str, ...]
