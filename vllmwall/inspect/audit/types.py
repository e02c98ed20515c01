"""The nouns of an audit: what was read of a workload, and what was found.

A value of a process that could be a secret never gets in here: `reading` drops it, and what is
left says only that there is one (`SET`). Imports no more of ours than the model and other
nouns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from vllmwall.inspect.audit.shape import SeverityWord
from vllmwall.model import Address, Role, Stack
from vllmwall.recognize.commandline import Flags

SET = "<set>"
"""Stands for the value of a secret."""


class Severity(IntEnum):
    """How bad it is. Comparable: higher is worse."""

    INFO = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @property
    def word(self) -> SeverityWord:
        """``critical``."""
        return _WORDS[self]


_WORDS: Mapping[Severity, SeverityWord] = {
    Severity.CRITICAL: "critical",
    Severity.HIGH: "high",
    Severity.MEDIUM: "medium",
    Severity.LOW: "low",
    Severity.INFO: "info",
}


@dataclass(frozen=True)
class Place:
    """A listener of the workload. ``walled``: a rule of ours keeps strangers from it."""

    role: Role
    where: str
    port: int
    address: Address | None
    is_loopback: bool
    is_wildcard: bool
    walled: bool = False

    @property
    def is_exposed(self) -> bool:
        """Another host can get there, as far as the socket itself is concerned."""
        return not self.is_loopback


@dataclass(frozen=True)
class Environment:
    """The variables that checks read.

    ``complete`` is False where some may be missing: the process renamed itself and overwrote
    them, or may not be read. What is in ``values`` was there in any case.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    complete: bool = False


@dataclass(frozen=True)
class CommandLine:
    """The flags that checks read, and which secrets stand among them in clear.

    ``complete`` is False where the process renamed itself, names a settings file that may not
    be read, or is no server whose flags we know. ``readable``: it has not renamed itself.
    """

    flags: Flags = field(default_factory=lambda: Flags({}))
    complete: bool = False
    secrets: tuple[str, ...] = ()
    readable: bool = False


@dataclass(frozen=True)
class Confinement:
    """How the process is confined, as the host sees it.

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
    """The files of a served model, as far as they are on this node.

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

    ``part`` is what of the stack it is (``serve``, ``proxy``…); empty where no server process
    could be told from the others: the pid is then the root's, and flags are not known.
    ``versions`` are of the packages installed in its environment. ``public`` is a global
    address of the node on which the API answers. ``networks`` are the node's interfaces that
    have an address of their own. ``proxies`` are reverse proxies in the same namespace.
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

    def of_role(self, role: Role) -> tuple[Place, ...]:
        """Its listeners of one role."""
        return tuple(place for place in self.places if place.role is role)

    @property
    def exposed_api(self) -> tuple[Place, ...]:
        """The API's listeners that are not on loopback."""
        return tuple(place for place in self.of_role(Role.API) if place.is_exposed)


@dataclass(frozen=True)
class Orders:
    """What the configuration says about models and weights."""

    allowed_models: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unclear:
    """A check that could not be made, and why. Never a finding."""

    reason: str


@dataclass(frozen=True)
class Seen:
    """A check that found something: ``what`` for people, and the listeners that it is about.

    ``at_most`` bounds the rule's severity where less than usual is known.
    """

    what: str
    places: tuple[Place, ...] = ()
    at_most: Severity = Severity.CRITICAL


Outcome = Seen | Unclear | None


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
class Unknown:
    """A check that could not be made for a workload."""

    id: str
    workload: str
    pid: int
    reason: str


@dataclass(frozen=True)
class Audit:
    """The whole result. ``accepted`` are findings that the configuration accepts."""

    findings: tuple[Finding, ...] = ()
    unknown: tuple[Unknown, ...] = ()
    accepted: tuple[Finding, ...] = ()
    problems: tuple[str, ...] = ()
