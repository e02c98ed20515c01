"""The nouns of vllmwall as frozen values.

A *process* owns *listeners*. A *workload* is the process tree of one job. Every listener of a
workload gets a *label*: its role, with confidence and evidence. Policy turns roles into
*audiences*. The wanted state of one network namespace is its *wall*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv6Address

from vllmwall import cidr, roles

Address = cidr.Address
Network = cidr.Network
Role = roles.Role
Stack = roles.Stack

PUBLIC, PEERS, NODE = "public", "peers", "node"
BUILT_IN_AUDIENCES = (PUBLIC, PEERS, NODE)


class Proto(str, Enum):
    """The protocol of a listener. ``unix`` listeners are shown, never walled."""

    TCP = "tcp"
    UDP = "udp"
    UNIX = "unix"


class Mode(str, Enum):
    """``enforce`` drops what the wall refuses; ``audit`` counts it and drops nothing."""

    ENFORCE = "enforce"
    AUDIT = "audit"


@dataclass(frozen=True)
class Process:
    """One process as `observe` read it.

    ``argv`` and ``env`` can hold secrets, so ``repr`` leaves them out; ``env`` and ``settings``
    (from the YAML file that ``--config`` names) hold only the keys that recognition reads.
    ``exec_argv`` is the command line at exec, where an event showed it: setproctitle overwrites
    ``/proc/PID/cmdline`` and ``/proc/PID/environ``. ``birth_ppid`` is the first parent seen;
    ``ppid`` becomes 1 when that one ends. ``image`` is the container's; empty: none or not known.
    ``threads`` counts threads by name (at most 15 bytes). ``libraries`` names the shared objects
    that recognition looks for and found mapped; None: not known. ``remembered`` is the stack of
    the workload it belonged to in an earlier pass, which a child of a dead root may not show.
    ``alive`` is False for a process known only from what it left behind. ``uid`` is the real one;
    ``mixed_ids``: the effective, saved or filesystem one differs (a setuid program), so that it
    speaks for nobody, and nothing else of it is read. ``unread`` is why it could not be read,
    ``settings_unread`` why the file that it names could not: nothing of it is public then.
    """

    pid: int
    ppid: int
    comm: str
    argv: tuple[str, ...] = field(default=(), repr=False)
    start_time: int = 0
    exe: str = ""
    uid: int = 0
    namespace: int = 0
    cgroup: str = "/"
    image: str = ""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    threads: Mapping[str, int] = field(default_factory=dict, repr=False)
    libraries: frozenset[str] | None = None
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    exec_argv: tuple[str, ...] | None = field(default=None, repr=False)
    birth_ppid: int | None = None
    remembered: Stack | None = None
    alive: bool = True
    mixed_ids: bool = False
    unread: str = ""
    settings_unread: str = ""

    @property
    def started_as(self) -> tuple[str, ...]:
        """The command line to read flags from: the one at exec where known."""
        return self.exec_argv or self.argv

    @property
    def title(self) -> str:
        """The command line that the process shows now."""
        return " ".join(self.argv) if self.argv else self.comm


@dataclass(frozen=True)
class Destination:
    """Where packets go: the IP version on the wire and an address; None: any of that version."""

    family: int
    address: Address | None = None


@dataclass(frozen=True)
class Listener:
    """One listening socket (TCP: LISTEN; UDP: bound, unconnected; unix: listening).

    ``address`` is what the kernel reports; None for unix. ``path`` is the unix path, abstract
    ones with a leading ``@``. ``backlog`` is the raw argument of ``listen()`` where an event
    carried it (uvicorn 2048, TCPStore and gloo -1, ZMQ 100, NCCL 16384); ``queue_limit`` is
    min(backlog, somaxconn), from sock_diag. ``order`` sorts listeners of one process by age.
    """

    namespace: int
    proto: Proto
    port: int
    address: Address | None = None
    path: str = ""
    inode: int = 0
    uid: int = 0
    pids: tuple[int, ...] = ()
    backlog: int | None = None
    queue_limit: int | None = None
    v6only: bool = False
    order: float = 0.0

    @property
    def plain_address(self) -> Address | None:
        """The address with ``::ffff:a.b.c.d`` written as the IPv4 address that it means."""
        if isinstance(self.address, IPv6Address) and self.address.ipv4_mapped is not None:
            return self.address.ipv4_mapped
        return self.address

    @property
    def is_wildcard(self) -> bool:
        """Bound to any address. ``::ffff:0.0.0.0`` counts."""
        return self.plain_address is not None and self.plain_address.is_unspecified

    @property
    def is_loopback(self) -> bool:
        """Reachable from this host only (127.0.0.0/8, ::1 and ::ffff:127.x), or a unix socket."""
        plain = self.plain_address
        return self.proto is Proto.UNIX if plain is None else plain.is_loopback

    @property
    def address_text(self) -> str:
        """As ss writes it: ``::ffff:10.0.0.1``, which Python writes in hex before 3.13."""
        if self.address != self.plain_address:
            return f"::ffff:{self.plain_address}"
        return "" if self.address is None else str(self.address)

    @property
    def where(self) -> str:
        """``tcp 10.0.0.1:8000``, ``tcp [::]:29500``, ``unix /tmp/x.sock``."""
        if self.address is None:
            return f"{self.proto.value} {self.path}"
        return f"{self.proto.value} {cidr.host_port(self.address_text, self.port)}"

    @property
    def destinations(self) -> tuple[Destination, ...]:
        """Where packets from outside this host must go to reach it; empty: none can."""
        return () if self.is_loopback else self.bound_to

    def reached_by(self, destination: Address) -> bool:
        """Whether a packet to this address and its port reaches it, if no closer socket does."""
        to = cidr.without_zone(destination)
        return any(one.family == to.version and one.address in (None, to) for one in self.bound_to)

    @property
    def bound_to(self) -> tuple[Destination, ...]:
        """Where packets must go to reach it, from wherever they come."""
        address = self.plain_address
        if address is None:
            return ()
        if not address.is_unspecified:
            return (Destination(address.version, cidr.without_zone(address)),)
        families = (4, 6) if address.version == 6 and not self.v6only else (address.version,)
        return tuple(map(Destination, families))


@dataclass(frozen=True)
class RaySession:
    """The ports that a Ray node wrote into its session directory, by the stem of the file.

    Source: ray 2.60, ``/tmp/ray/session_*/{gcs_server_port,metrics_agent_port,…}_<node id>``.
    It holds for processes of the user ``uid``; None: of all, as in old recordings.
    """

    directory: str
    ports: Mapping[str, tuple[int, ...]]
    uid: int | None = None


@dataclass(frozen=True)
class Node:
    """Everything that was observed on this node in one pass. ``relays`` are listeners that lead to
    others: the namespace, and the inodes of the outer and the inner one.

    ``left_out`` is why not all processes of these were looked at, by user and network namespace
    (0: any): listeners of theirs whose owner was not seen are internal.
    """

    processes: Mapping[int, Process]
    listeners: tuple[Listener, ...]
    ray_sessions: tuple[RaySession, ...] = ()
    relays: tuple[tuple[int, int, int], ...] = ()
    left_out: Mapping[tuple[int, int], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """One reason for a label: ``kind`` is a fixed word, ``detail`` is free text.

    Kinds: ``flag config default-port backlog threads title tree address environment
    session-file library order defined lockdown forwarder program unread opened adopted``.
    """

    kind: str
    detail: str


@dataclass(frozen=True)
class Label:
    """What a listener is for. ``confidence`` is between 0 and 1."""

    role: Role
    confidence: float
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class LabelledListener:
    """A listener of a workload, with its label."""

    listener: Listener
    label: Label


@dataclass(frozen=True)
class WorkloadId:
    """(root pid, start time in clock ticks): a reused pid is a new workload."""

    root_pid: int
    start_time: int


@dataclass(frozen=True)
class AdoptedSource:
    """A host that was connected to a workload before its first wall. It reaches the internal
    listeners of that workload, with ``role`` those of that role only."""

    address: Address
    role: Role | None = None


@dataclass(frozen=True)
class Workload:
    """One serving or training job on this node: the process tree under one launcher."""

    id: WorkloadId
    stack: Stack
    name: str
    pids: frozenset[int]
    listeners: tuple[LabelledListener, ...] = ()
    uid: int = 0
    cgroup: str = "/"
    adopted: tuple[AdoptedSource, ...] = ()


@dataclass(frozen=True)
class Recognition:
    """The workloads of this node, and the listeners that belong to none of them. ``inherited`` are
    those of the latter that a workload holds too, with the name of the program outside.

    ``problems`` are processes that could not be judged, a line for each: they are closed.
    """

    workloads: tuple[Workload, ...]
    unclaimed: tuple[Listener, ...]
    inherited: tuple[tuple[WorkloadId, Listener, str], ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Policy:
    """The audience of each role, from configuration.

    An audience is a tuple of names: ``public``, ``peers``, ``node`` or groups. ``audiences``
    holds the roles that the configuration names; the others have ``default``. A port in
    ``failsafe`` never enters a wall. ``limits`` apply to public API ports. ``lockdown`` closes
    every other port of the host except ``opened``; then only ``api_users`` (uids) and units that
    match ``api_units`` (globs) may open an API.
    """

    audiences: Mapping[Role, tuple[str, ...]]
    default: tuple[str, ...] = (PEERS,)
    groups: Mapping[str, tuple[Network, ...]] = field(default_factory=dict)
    failsafe: frozenset[tuple[Proto, int]] = frozenset({(Proto.TCP, 22)})
    mode: Mode = Mode.ENFORCE
    lockdown: bool = False
    opened: frozenset[tuple[Proto, int]] = frozenset()
    api_users: frozenset[int] = frozenset({0})
    api_units: tuple[str, ...] = ()
    limits: Limits | None = None
    log: KernelLog | None = None

    def audience_of(self, role: Role) -> tuple[str, ...]:
        """The audience of a role."""
        return self.audiences.get(role, self.default)


@dataclass(frozen=True)
class WallEntry:
    """One element of a wall's maps: packets to this port get the verdict of this audience.

    ``family`` is 4 or 6. ``address`` None: bound to any address of that family. ``audience`` is
    sorted, without duplicates; ``("public",)`` accepts. ``note`` (role and workload) is the
    element's comment in ``nft list table``. ``limited``: the wall's limits apply.
    """

    family: int
    proto: Proto
    port: int
    audience: tuple[str, ...]
    address: Address | None = None
    note: str = ""
    limited: bool = False


@dataclass(frozen=True)
class Guard:
    """A cgroup whose TCP ports are closed before they exist.

    ``level`` is its depth (1: ``/system.slice``), ``id`` the kernel's number: a restart changes it.
    """

    level: int
    id: int
    path: str = field(default="", compare=False)


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


@dataclass(frozen=True)
class Wall:
    """The whole wanted state of one network namespace.

    ``networks`` holds the merged CIDRs of ``peers`` and of each audience that entries use. A SYN
    to a port without an entry, for a socket made in one of ``guards``, is accepted from
    ``guard_audience`` only, except at TCP ports in ``failsafe``. ``answering``: the wall resets a
    SYN to a port without a listener, so that it cannot meet one that opens a moment later.

    Sources in ``banned`` (merged) reach only ports in ``failsafe`` and ``failsafe_udp``.
    ``lockdown`` closes ports without an entry, except ``opened``. ``limits`` apply to entries that
    are limited, not to peers; ``log`` is where the kernel logs dropped packets. ``redirected``: the
    port that a packet had before NAT counts too. This host reaches itself by lo and its ``vrfs``.
    """

    namespace: int
    entries: frozenset[WallEntry]
    networks: Mapping[str, tuple[Network, ...]]
    mode: Mode = Mode.ENFORCE
    guards: frozenset[Guard] = frozenset()
    guard_audience: tuple[str, ...] = (PEERS,)
    failsafe: frozenset[int] = frozenset()
    answering: bool = False
    banned: tuple[Network, ...] = ()
    failsafe_udp: frozenset[int] = frozenset()
    lockdown: bool = False
    opened: frozenset[tuple[Proto, int]] = frozenset()
    limits: Limits | None = None
    log: KernelLog | None = None
    redirected: bool = False
    vrfs: frozenset[str] = frozenset()
