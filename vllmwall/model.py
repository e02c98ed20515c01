"""The nouns of vllmwall as frozen values.

One word for one thing: a *process* owns *listeners*; a *workload* is the process tree of one
job; every listener of a workload gets a *label* (its role, how sure we are, and why); policy
turns roles into *audiences*; what one network namespace shall look like is its *wall*.

No input or output; every other module may import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PUBLIC = "public"
PEERS = "peers"
NODE = "node"
BUILT_IN_AUDIENCES = (PUBLIC, PEERS, NODE)


class Proto(str, Enum):
    """What a listener speaks. ``unix`` listeners are shown, never walled: no packet comes."""

    TCP = "tcp"
    UDP = "udp"
    UNIX = "unix"


class Role(str, Enum):
    """What a listener is for. Only ``api`` is public unless the configuration says otherwise."""

    API = "api"
    METRICS = "metrics"
    TCPSTORE = "tcpstore"
    RENDEZVOUS = "rendezvous"
    GLOO = "gloo"
    NCCL = "nccl"
    ZMQ = "zmq"
    ZMQ_IPC = "zmq-ipc"
    DP_RPC = "dp-rpc"
    DP_COORDINATOR = "dp-coordinator"
    KV_TRANSFER = "kv-transfer"
    KV_EVENTS = "kv-events"
    TENSORPIPE = "tensorpipe"
    RAY_GCS = "ray-gcs"
    RAY_NODE_MANAGER = "ray-node-manager"
    RAY_OBJECT_MANAGER = "ray-object-manager"
    RAY_WORKER = "ray-worker"
    RAY_CLIENT_SERVER = "ray-client-server"
    RAY_DASHBOARD = "ray-dashboard"
    RAY_DASHBOARD_AGENT_HTTP = "ray-dashboard-agent-http"
    RAY_DASHBOARD_AGENT_GRPC = "ray-dashboard-agent-grpc"
    RAY_RUNTIME_ENV_AGENT = "ray-runtime-env-agent"
    RAY_METRICS = "ray-metrics"
    RAY_METRICS_EXPORT = "ray-metrics-export"
    DEBUG = "debug"
    UNIX = "unix"
    UNKNOWN = "unknown"


class Stack(str, Enum):
    """The software a workload belongs to. ``custom`` is what the configuration taught us."""

    VLLM = "vllm"
    TORCH = "torch"
    RAY = "ray"
    SGLANG = "sglang"
    LMDEPLOY = "lmdeploy"
    MOONCAKE = "mooncake"
    NIXL = "nixl"
    LMCACHE = "lmcache"
    CUSTOM = "custom"


class Mode(str, Enum):
    """``enforce`` drops what the wall refuses; ``audit`` counts it and drops nothing."""

    ENFORCE = "enforce"
    AUDIT = "audit"


@dataclass(frozen=True)
class Process:
    """One process as `observe` saw it.

    ``argv`` and ``env`` belong to the user and can hold secrets: they are left out of ``repr``,
    and ``env`` and ``settings`` hold only the keys that recognition reads
    (`vllmwall.recognize.inputs`).

    ``exec_argv`` is what the process was started with, where we saw that before it renamed
    itself: setproctitle overwrites ``/proc/PID/cmdline`` and ``/proc/PID/environ``.
    ``birth_ppid`` is the parent it had when first seen; ``ppid`` becomes 1 when that dies.
    ``image`` is what its container runs; empty: no container, or not known.
    ``threads`` maps thread names (``/proc/PID/task/*/comm``, at most 15 bytes) to their number.
    ``libraries`` names the tell-tale shared objects it has mapped; None: not known.
    ``settings`` are the keys we read from the YAML file that its ``--config`` names.
    ``remembered`` is the stack of the workload it belonged to at an earlier look: a child whose
    root died may show nothing else of where it came from.
    ``alive`` is False for a process known only from what it left behind.
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

    @property
    def started_as(self) -> tuple[str, ...]:
        """The command line to read flags from: the one at exec where known."""
        return self.exec_argv or self.argv

    @property
    def title(self) -> str:
        """What the process calls itself now."""
        return " ".join(self.argv) if self.argv else self.comm


def host_port(address: object, port: object) -> str:
    """``10.0.0.1:80``, ``[fd00::1]:80``."""
    return f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"


def without_zone(address: Address) -> Address:
    """The address without its scope (``%eth0``), which no packet carries."""
    return IPv6Address(int(address)) if isinstance(address, IPv6Address) else address


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
    told it (uvicorn 2048, TCPStore and gloo -1, ZMQ 100, NCCL 16384); ``queue_limit`` is what
    sock_diag shows: min(backlog, somaxconn). ``order`` sorts listeners of one process by age
    (the socket inode, or the time in a recording).
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
        if self.plain_address is None:
            return self.proto is Proto.UNIX
        return self.plain_address.is_loopback

    @property
    def address_text(self) -> str:
        """As ss writes it: ``::ffff:10.0.0.1``, which Python writes in hex before 3.13."""
        if self.address != self.plain_address:
            return f"::ffff:{self.plain_address}"
        return "" if self.address is None else str(self.address)

    @property
    def where(self) -> str:
        """``tcp 10.0.0.1:8000``, ``tcp [::]:29500``, ``unix /tmp/x.sock``: for people."""
        if self.address is None:
            return f"{self.proto.value} {self.path}"
        return f"{self.proto.value} {host_port(self.address_text, self.port)}"

    @property
    def destinations(self) -> tuple[Destination, ...]:
        """The packets from outside this host that reach it, beside its protocol and port.

        Empty for a loopback address and for a unix socket.
        """
        return () if self.is_loopback else self._bound_to

    def reached_by(self, destination: Address) -> bool:
        """Whether a packet to this address, from wherever, reaches it if no other socket does."""
        return any(
            (one.family, one.address or without_zone(destination))
            == (destination.version, without_zone(destination))
            for one in self._bound_to
        )

    @property
    def _bound_to(self) -> tuple[Destination, ...]:
        address = self.plain_address
        if address is None:
            return ()
        if not address.is_unspecified:
            return (Destination(address.version, without_zone(address)),)
        both = address.version == 6 and not self.v6only
        return tuple(Destination(family) for family in ((4, 6) if both else (address.version,)))


@dataclass(frozen=True)
class RaySession:
    """The ports that a Ray node wrote into its session directory.

    Source: ray 2.60, ``/tmp/ray/session_*/{gcs_server_port,metrics_agent_port,…}_<node id>``.
    ``ports`` maps the file's stem (``gcs_server_port``) to the ports found in such files.
    """

    directory: str
    ports: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Node:
    """Everything that was observed on this node in one pass."""

    processes: Mapping[int, Process]
    listeners: tuple[Listener, ...]
    ray_sessions: tuple[RaySession, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """One reason for a label: ``kind`` is a short fixed word, ``detail`` is for people.

    Kinds: ``flag config default-port backlog threads title tree address environment
    session-file library order taught lockdown forwarder``.
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
class Workload:
    """One serving or training job on this node: the process tree under one launcher."""

    id: WorkloadId
    stack: Stack
    name: str
    pids: frozenset[int]
    listeners: tuple[LabelledListener, ...] = ()
    uid: int = 0
    cgroup: str = "/"


@dataclass(frozen=True)
class Recognition:
    """The result of one recognition: workloads, and listeners that belong to none of them."""

    workloads: tuple[Workload, ...]
    unclaimed: tuple[Listener, ...]


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
class Policy:
    """Who may connect to what, from configuration.

    An audience is a tuple of names: ``public``, ``peers``, ``node`` or groups. ``audiences``
    holds the roles that the configuration names, ``default`` all others. A port in
    ``failsafe`` never enters a wall. ``limits`` are for API ports that everyone may reach.
    With ``lockdown`` the host closes every other port too, but ``opened``, and only
    ``api_users`` (uids) and what runs in ``api_units`` (globs) may open an API.
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
    """One element of a wall's maps: packets to this port go to this audience's verdict.

    ``family`` is 4 or 6. ``address`` None means bound to any address of that family.
    ``audience`` is sorted and without repeats; ``("public",)`` accepts. ``note`` becomes the
    element's comment: role and workload, for people who read ``nft list table``. ``limited``:
    a public TCP port at which the wall's limits count.
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

    ``level`` is its depth below the root of the v2 hierarchy (1: ``/system.slice``), ``id`` the
    kernel's number for it, which a restarted unit does not keep. ``path`` is for people.
    """

    level: int
    id: int
    path: str = field(default="", compare=False)


@dataclass(frozen=True)
class Wall:
    """The whole wanted state of one network namespace.

    ``networks`` holds the merged CIDRs behind each audience name that entries use, ``peers``
    always among them. A SYN to a port without an entry whose socket was made in one of
    ``guards`` is for ``guard_audience`` only, except to the TCP ports in ``failsafe``.
    ``answering``: a SYN to a port at which nobody listens gets its reset from the wall, so that
    it cannot meet a listener that comes a moment later.

    Sources in ``banned`` (merged) reach no port but the failsafe ones, ``failsafe_udp`` among
    them. ``lockdown``: ports without an entry are closed too, but ``opened``. ``limits`` count at
    entries that are limited, peers excepted; ``log`` is where the kernel tells of refusals.
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
