"""vLLM: ``vllm serve`` and its modules, the processes they start, and offline engines.

Facts: vLLM 0.6 to 0.33 read, 0.32 seen live. Children rename themselves (``VLLM::Worker_TP0``;
the prefix is ``VLLM_PROCESS_NAME_PREFIX``) and lose their command line, so flags are always
those of the server at the top.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from vllmwall.model import Evidence, Label, Process, Role, Stack
from vllmwall.recognize.api import GRPC, HTTP, ApiCase, api_label
from vllmwall.recognize.fingerprints import (
    ASYNCIO_BACKLOG,
    GRPC_BACKLOG,
    PROMETHEUS_BACKLOG,
    UVICORN_BACKLOG,
    ZMQ_BACKLOG,
    asked,
    asked_for_most,
    library_label,
)
from vllmwall.recognize.kv import in_transfer_range
from vllmwall.recognize.names import script_name, short_name
from vllmwall.recognize.stack_rules import (
    CHILD,
    Candidate,
    Claim,
    ListenerContext,
    StackRules,
    WorkloadTree,
    label,
    unknown,
)
from vllmwall.recognize.vllm_flags import ServerFlags, server_kind

_TITLE = re.compile(r"\S*::((?:DP)?EngineCor|Worker|APIServer|DPCoordin)")
_PARTS = {
    "EngineCor": "engine",
    "DPEngineCor": "engine",
    "Worker": "worker",
    "APIServer": "api-server",
    "DPCoordin": "coordinator",
}
_SERVERS = frozenset({"serve", "grpc", "rust", "batch", "preload"})
_NOT_API = frozenset({"engine", "worker", "coordinator"})
_ZMQ_IPC = label(Role.ZMQ_IPC, 0.9, ("address", "unix socket of a vLLM process"))
_LMCACHE_INTERNAL_API = range(6999, 7064)


def claim(candidate: Candidate) -> Claim | None:
    """A vLLM server, or what one starts."""
    process = candidate.process
    if match := _TITLE.match(candidate.title):
        return Claim(Stack.VLLM, _PARTS[match.group(1)])
    if kind := server_kind(candidate.command):
        return Claim(Stack.VLLM, kind, launched=kind in _SERVERS)
    if "VLLM_WORKER_MULTIPROC_METHOD" in process.env and "multiprocessing" in (
        candidate.command.code
    ):
        return Claim(Stack.VLLM, CHILD)
    if candidate.is_python and candidate.has("vllm"):
        return Claim(Stack.VLLM, "front")
    if not process.started_as and process.comm == "vllm":
        return Claim(Stack.VLLM, "front")
    return None


def name(tree: WorkloadTree) -> str:
    """The model's last path component, or the script of an offline engine."""
    candidate = tree.candidate(tree.root)
    if tree.part_of(tree.root) in _SERVERS:
        return short_name(tree.once(_flags, tree.root).model, "vllm")
    return script_name((candidate.command.script,), "vllm")


@dataclass(frozen=True)
class _Place:
    """A listener, and the server above its owner: its pid (0: none) and flags."""

    context: ListenerContext
    server: int
    kind: str
    flags: ServerFlags

    @property
    def owned_by_server(self) -> bool:
        return self.context.owner == self.server

    @property
    def port(self) -> int:
        return self.context.listener.port

    @property
    def serves(self) -> str:
        """Why the tree makes the owner an API server; empty: it does not."""
        context = self.context
        if self.owned_by_server and self.kind not in ("batch", "preload"):
            return "" if self.flags.is_supervisor else "the server process itself"
        parent = context.tree.parents.get(context.owner)
        if context.part == "api-server" and parent == self.server:
            return "API server started by the server process"
        return _front_that_died(context)

    @property
    def speaks_zmq(self) -> bool:
        """Nothing speaks against a ZMQ socket."""
        listener = self.context.listener
        nothing_seen = listener.backlog is None and listener.queue_limit is None
        return nothing_seen or asked(listener, ZMQ_BACKLOG)


def label_listener(context: ListenerContext) -> Label:
    """The role of one listener of a vLLM tree."""
    place = _place(context)
    if context.is_unix:
        return _unix(place)
    for test in (_control, _api, _health, _preload, _zmq_of_part, _library, _late):
        if (found := test(place)) is not None:
            return found
    return unknown(context)


def _control(place: _Place) -> Label | None:
    """The Rust frontend's gRPC has a Control service: Shutdown, LoadLora, UpdateWeights."""
    if place.port != place.flags.grpc_port or place.context.part in _NOT_API:
        return None
    return label(Role.GRPC, 0.95, ("flag", f"grpc-port {place.port}"))


def _preload(place: _Place) -> Label | None:
    """`vllm preload` from 0.31 on: health, and from 0.33 on a plain TCP listener for each rank."""
    if place.kind != "preload":
        return None
    if place.owned_by_server and place.port == place.flags.weights_health_port:
        return label(Role.METRICS, 0.9, ("flag", f"weight-cache-health-port {place.port}"))
    if place.flags.is_seed(place.port):
        return label(Role.KV_TRANSFER, 0.9, ("flag", "seed-listen-port: hands out weights"))
    return None


def _library(place: _Place) -> Label | None:
    return library_label(place.context)


def _place(context: ListenerContext) -> _Place:
    tree = context.tree
    server = tree.once(_server_above, context.owner)
    return _Place(context, server, tree.part_of(server), tree.once(_flags, server))


def _server_above(tree: WorkloadTree, pid: int) -> int:
    """The topmost vLLM server on the way from a process to the root; 0: none."""
    claims = [(one, tree.claims[one]) for one in tree.line(pid) if one in tree.claims]
    mine = [one for one, claim in claims if claim.stack is Stack.VLLM and claim.part in _SERVERS]
    return mine[-1] if mine else 0


def _flags(tree: WorkloadTree, server: int) -> ServerFlags:
    """The flags of a server; without one there are none."""
    return ServerFlags.of(tree.processes[server]) if server else ServerFlags((), {})


def _front_that_died(context: ListenerContext) -> str:
    """Only a replay shows a dead owner; it opens nothing."""
    process = context.process
    if process.alive or process.argv or process.comm != "vllm":
        return ""
    parents = context.tree.parents
    engines = (pid for pid, one in context.tree.claims.items() if one.part == "engine")
    started = any(parents.get(pid) == process.pid for pid in engines)
    return "it started an engine" if started else ""


def _unix(place: _Place) -> Label:
    path = place.context.listener.path
    if path and path == place.flags.uds and place.serves:
        kind = place.flags.kind_of("uds")
        return label(Role.API, 0.95, (kind, f"uds {path}"), ("tree", place.serves))
    return _ZMQ_IPC


def _api(place: _Place) -> Label | None:
    inner = place.context.part in _SERVERS and not place.owned_by_server
    if inner or place.context.part in _NOT_API or place.kind in ("batch", "preload"):
        return None
    if not place.server:
        return _api_without_server(place)
    is_grpc = place.kind == "grpc" or place.flags.grpc
    # who calls listen() on the socket that is handed to the Rust frontend differs by version
    backlogs = GRPC if is_grpc else None if _is_rust(place) else HTTP
    wide_v6 = is_grpc or ":" in place.flags.host
    ports = place.flags.api_ports(place.kind)
    found = api_label(place.context, ApiCase(ports, place.serves, backlogs, wide_v6))
    return _back_room(place, found) if found else None


def _back_room(place: _Place, found: Label) -> Label:
    """``backend`` where a router, a partner or another front serves the clients."""
    tree = place.context.tree
    reason = place.flags.partner
    if not reason and place.flags.is_balanced_outside and place.port in tree.routed:
        reason = "a router on this host sends it requests: external load balancing"
    above = (tree.claims.get(pid) for pid in tree.line(place.server)[1:])
    if not reason and any(claim is not None and claim.serves for claim in above):
        reason = "inner server of another front"
    if not reason:
        return found
    return Label(Role.BACKEND, found.confidence, (*found.evidence, Evidence("program", reason)))


def _api_without_server(place: _Place) -> Label | None:
    if not place.serves:
        return None
    return api_label(place.context, ApiCase(None, place.serves))


def _is_rust(place: _Place) -> bool:
    processes = place.context.tree.processes
    names = {processes[pid].comm for pid in place.context.owners}
    return place.kind == "rust" or "vllm-rs" in names


def _health(place: _Place) -> Label | None:
    """Metrics of a batch run, health of a data-parallel supervisor."""
    listener = place.context.listener
    if not place.owned_by_server:
        return None
    if place.flags.is_supervisor and place.port == place.flags.supervisor_port:
        return label(Role.METRICS, 0.9, ("flag", f"supervisor port {place.port}"))
    if place.kind == "batch" and place.port == place.flags.port:
        return label(Role.METRICS, 0.95, ("flag", f"port {place.port}"), ("tree", "run-batch"))
    if asked(listener, PROMETHEUS_BACKLOG) or (
        place.flags.is_supervisor and asked(listener, UVICORN_BACKLOG)
    ):
        return label(Role.METRICS, 0.8, ("backlog", str(listener.backlog)))
    return None


def _zmq_of_part(place: _Place) -> Label | None:
    """ZMQ sockets that have a name of their own."""
    part = place.context.part
    if part == "coordinator":
        return label(Role.DP_COORDINATOR, 0.97, ("title", "DPCoordinator"))
    if part in ("engine", "worker") and place.speaks_zmq:
        return _side_channel(place)
    if part in ("engine", "worker"):
        return None
    if place.speaks_zmq and place.port == place.flags.rpc_port:
        return label(Role.DP_RPC, 0.95, ("flag", f"data-parallel-rpc-port {place.port}"))
    if place.server and asked(place.context.listener, ASYNCIO_BACKLOG) and _has_zmq(place):
        # bound beforehand and handed to the API servers: network_utils.make_zmq_listener
        return label(Role.ZMQ, 0.9, ("backlog", "128"), ("threads", "ZMQbg"))
    return None


def _has_zmq(place: _Place) -> bool:
    """Some owner runs ZMQ threads: an API server that got the socket from the server."""
    context = place.context
    owners = [context.tree.candidate(pid) for pid in context.owners]
    return any(one.has_thread("ZMQbg/") for one in owners) or not context.process.threads


def _side_channel(place: _Place) -> Label | None:
    kind = place.flags.side_channel(place.port, _environment(place))
    if kind:
        return label(Role.KV_TRANSFER, 0.9, (kind, f"side channel port {place.port}"))
    if place.context.part == "engine":
        return _kv_events(place)
    return None


def _environment(place: _Place) -> Process:
    """The process that still has the environment: the server, otherwise the root."""
    tree = place.context.tree
    return tree.processes[place.server or tree.root]


def _kv_events(place: _Place) -> Label | None:
    if place.port in place.flags.kv_event_ports:
        return label(Role.KV_EVENTS, 0.95, ("flag", f"kv-events-config port {place.port}"))
    address = place.context.listener.address
    if address is not None and address.version == 4 and address.is_unspecified:
        # the only ZMQ socket that an engine binds to all addresses; --grpc opens it unasked
        return label(Role.KV_EVENTS, 0.7, ("address", "wildcard"), ("tree", "engine"))
    return None


def _late(place: _Place) -> Label | None:
    """The roles without a library fingerprint: Ray inside, Mooncake, LMCache, plain ZMQ."""
    context, listener = place.context, place.context.listener
    in_ray = context.tree.has_stack(Stack.RAY) or context.tree.candidate(context.owner).has("ray")
    grpc = asked(listener, GRPC_BACKLOG) or asked_for_most(context)
    if in_ray and listener.is_wildcard and grpc:
        return label(Role.RAY_WORKER, 0.8, ("backlog", "4096"), ("tree", "runs with Ray"))
    if context.part == "worker" and in_transfer_range(context):
        return label(Role.KV_TRANSFER, 0.8, ("default-port", "Mooncake 15000-17000"))
    if place.flags.bootstrap(place.port, _environment(place)):
        return label(Role.KV_TRANSFER, 0.8, ("environment", "Mooncake bootstrap"))
    if asked(listener, UVICORN_BACKLOG) and place.port in _LMCACHE_INTERNAL_API:
        return label(Role.DEBUG, 0.7, ("default-port", "LMCache internal API"))
    return None


RULES = StackRules(Stack.VLLM, claim, label_listener, name, frozenset({"vllm"}))
