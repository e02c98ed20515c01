"""Ray: head and worker nodes, drivers, Serve; also where vLLM started it.

Facts: Ray 2.60 seen live. Nearly every Ray listener is on all addresses and on a random port;
the ports are in files of the session directory (`RaySession`).
"""

from __future__ import annotations

import re

from vllmwall.model import Label, Listener, Proto, Role, Stack
from vllmwall.recognize.api import GRPC, HTTP, ApiCase, api_label
from vllmwall.recognize.commandline import Flags, read_flags
from vllmwall.recognize.fingerprints import (
    GRPC_BACKLOG,
    PROMETHEUS_BACKLOG,
    UVICORN_BACKLOG,
    asked,
    library_label,
)
from vllmwall.recognize.names import script_name
from vllmwall.recognize.stack_rules import (
    Candidate,
    Claim,
    ListenerContext,
    StackRules,
    WorkloadTree,
    label,
    unknown,
)

_SESSION = re.compile(r"session_\d{4}-\d\d-\d\d_[\d_-]+")
_NATIVE = {"gcs_server": "gcs", "raylet": "raylet"}
_MODULES = {
    "ray.dashboard.dashboard": "dashboard",
    "ray.dashboard.agent": "agent",
    "ray._private.runtime_env.agent.main": "runtime-env-agent",
    "ray.autoscaler._private.monitor": "monitor",
    "ray._private.log_monitor": "helper",
    "ray.util.client.server": "client-server",
    "ray._private.workers.default_worker": "worker",
    "ray._private.workers.setup_worker": "worker",
}
_TITLES = {
    "ray::DashboardAgent": "agent",
    "ray::RuntimeEnvAgent": "runtime-env-agent",
    "ray::ProxyActor": "proxy",
    "ray::HTTPProxyActor": "proxy",
}
_KNOWN = (
    "gcs-server-port",
    "grpc-port",
    "head",
    "listen-port",
    "max-worker-port",
    "metrics-export-port",
    "min-worker-port",
    "node-manager-port",
    "object-manager-port",
    "port",
    "runtime-env-agent-port",
)
_SERVE_GRPC_PORT = 9000
_HAPROXY_METRICS = (8404, 9101)
_SERVE_PORTS = {8000: "default-port", _SERVE_GRPC_PORT: "default-port"}


def claim(candidate: Candidate) -> Claim | None:
    """A process of a Ray node, one of its workers, or a driver."""
    part, launched = _part(candidate)
    return Claim(Stack.RAY, part, launched, _session(candidate)) if part else None


def _part(candidate: Candidate) -> tuple[str, bool]:
    command, title = candidate.command, candidate.title
    if title.startswith("ray::"):
        return _TITLES.get(_full_title(title.partition(".")[0]), "worker"), False
    if title.startswith("ray-dashboard-"):
        return "helper", False
    if native := _NATIVE.get(command.binary or candidate.process.comm):
        return native, True
    if command.name == "ray" and command.words[:1] == ("start",):
        return "launcher", True
    if part := command.pick(_MODULES):
        return part, True
    if candidate.is_python and candidate.has_thread("worker.io"):
        return "driver", False
    return "", False


def _full_title(title: str) -> str:
    """Where only comm is left, it is cut to 15 bytes: the title that it may be cut from."""
    return next((full for full in _TITLES if len(title) >= 15 and full.startswith(title)), title)


def _session(candidate: Candidate) -> str:
    for word in candidate.process.started_as:
        if match := _SESSION.search(word):
            return match.group()
    return ""


def name(tree: WorkloadTree) -> str:
    """``head``, ``node``, or the driver's script."""
    if tree.part_of(tree.root) in ("driver", "front"):
        return script_name((tree.candidate(tree.root).command.script,), "driver")
    parts = {claim.part for claim in tree.claims.values()}
    starts_head = tree.once(_flags, tree.root).is_on("head")
    return "head" if "gcs" in parts or starts_head else "node"


def label_listener(context: ListenerContext) -> Label:
    """The role of one listener of a Ray process."""
    if context.is_unix:
        return unknown(context)
    if context.tree.candidate(context.owner).command.name == "haproxy":
        return _haproxy(context)
    part = context.tree.claim_of(context.owner).part
    return _ONE_ROLE.get(part) or _LABELS.get(part, _worker)(context)


def _flags(tree: WorkloadTree, pid: int) -> Flags:
    return read_flags(tree.candidate(pid).command.args, _KNOWN)


def _session_has(context: ListenerContext, kind: str) -> bool:
    """No user names the ports of another one."""
    users = (None, context.process.uid)
    sessions = (one for one in context.tree.ray_sessions if one.uid in users)
    return any(context.listener.port in session.ports.get(kind, ()) for session in sessions)


def _gcs(context: ListenerContext) -> Label:
    port = context.listener.port
    if _session_has(context, "gcs_server_port"):
        return label(Role.RAY_GCS, 0.99, ("session-file", f"gcs_server_port {port}"))
    if port == context.tree.once(_flags, context.owner).number("gcs-server-port"):
        return label(Role.RAY_GCS, 0.99, ("flag", f"gcs_server_port {port}"))
    return label(Role.RAY_GCS, 0.9, ("tree", "gcs_server"))


def _raylet(context: ListenerContext) -> Label:
    """Object manager and node manager: by flag, by its children's command lines, by age."""
    port, tree = context.listener.port, context.tree
    flags = tree.once(_flags, context.owner)
    if port == flags.number("object-manager-port"):
        return label(Role.RAY_OBJECT_MANAGER, 0.97, ("flag", f"object_manager_port {port}"))
    if port == flags.number("node-manager-port"):
        return label(Role.RAY_NODE_MANAGER, 0.97, ("flag", f"node_manager_port {port}"))
    named = tree.once(_node_manager_ports, context.owner)
    if port in named:
        return label(
            Role.RAY_NODE_MANAGER, 0.97, ("tree", "its workers' command line names this port")
        )
    first = next((one for one in context.siblings if one.address and one.port not in named), None)
    if first == context.listener:
        return label(Role.RAY_OBJECT_MANAGER, 0.85, ("order", "the raylet's first listener"))
    return label(Role.RAY_NODE_MANAGER, 0.85, ("order", "the raylet's later listener"))


def _node_manager_ports(tree: WorkloadTree, raylet: int) -> frozenset[int]:
    children = (pid for pid, parent in tree.parents.items() if parent == raylet)
    ports = (
        tree.once(_flags, pid).number("node-manager-port")
        for pid in children
        if pid in tree.members
    )
    return frozenset(port for port in ports if port)


def _dashboard(context: ListenerContext) -> Label:
    if asked(context.listener, PROMETHEUS_BACKLOG) or context.listener.port == 44227:
        return label(Role.RAY_METRICS, 0.95, ("tree", "dashboard"), ("backlog", "5"))
    port = context.listener.port
    if port == context.tree.once(_flags, context.owner).number("port"):
        return label(Role.RAY_DASHBOARD, 0.97, ("flag", f"port {port}"), ("tree", "dashboard"))
    return label(Role.RAY_DASHBOARD, 0.8, ("tree", "dashboard"))


def _agent(context: ListenerContext) -> Label:
    """The dashboard agent: by session file, flag, backlog, and last by address."""
    flags, listener = context.tree.once(_flags, context.owner), context.listener
    for role, file, flag, _ in _AGENT_PORTS:
        if _session_has(context, file):
            return label(role, 0.97, ("session-file", f"{file} {listener.port}"))
        if listener.port == flags.number(flag):
            return label(role, 0.97, ("flag", f"{flag} {listener.port}"))
    for role, _, _, backlog in _AGENT_PORTS:
        if asked(listener, backlog):
            return label(role, 0.9, ("title", "DashboardAgent"), ("backlog", str(backlog)))
    return _agent_by_address(listener)


_AGENT_PORTS = (
    (Role.RAY_METRICS_EXPORT, "metrics_export_port", "metrics-export-port", 5),
    (Role.RAY_DASHBOARD_AGENT_GRPC, "metrics_agent_port", "grpc-port", 4096),
    (Role.RAY_DASHBOARD_AGENT_HTTP, "dashboard_agent_listen_port", "listen-port", 128),
)


def _agent_by_address(listener: Listener) -> Label:
    evidence = ("address", f"{listener.address}")
    if not listener.is_wildcard:
        return label(Role.RAY_DASHBOARD_AGENT_HTTP, 0.7, evidence)
    if listener.address is not None and listener.address.version == 6:
        return label(Role.RAY_DASHBOARD_AGENT_GRPC, 0.7, evidence)
    return label(Role.RAY_METRICS_EXPORT, 0.7, evidence)


def _proxy(context: ListenerContext) -> Label:
    """Serve's proxy: HTTP on 8000 unless configured otherwise; gRPC on 9000 if asked for.

    Its own core worker listens on a port of the raylet's range, which is never the API.
    """
    if context.tree.once(_has_haproxy, context.tree.root):
        return unknown(context) if asked(context.listener, UVICORN_BACKLOG) else _worker(context)
    is_http = asked(context.listener, UVICORN_BACKLOG)
    if context.listener.port in _worker_ports(context) and not is_http:
        return _worker(context)
    if not _is_child_of_raylet(context):
        return _worker(context)
    is_grpc = context.listener.port == _SERVE_GRPC_PORT
    ports = _SERVE_PORTS if context.listener.port in _SERVE_PORTS else None
    case = ApiCase(ports, "Serve proxy started by a raylet", GRPC if is_grpc else HTTP, is_grpc)
    return api_label(context, case) or _worker(context)


def _has_haproxy(tree: WorkloadTree, _: int) -> bool:
    """HAProxy is Serve's front door (Ray 2.60); the proxy actors are only its fall-back."""
    members = (tree.candidate(pid) for pid in tree.members)
    return any(
        one.command.name == "haproxy" or one.title == "ray::HAProxyManager" for one in members
    )


def _haproxy(context: ListenerContext) -> Label:
    """The HAProxy that Serve starts: statistics, metrics, and the front door."""
    port = context.listener.port
    if port in _HAPROXY_METRICS:
        return label(Role.RAY_METRICS, 0.9, ("default-port", f"HAProxy {port}"), ("tree", "Serve"))
    if port in _SERVE_PORTS:
        return label(Role.API, 0.9, ("default-port", f"port {port}"), ("tree", "Serve's HAProxy"))
    if context.tree.once(_fronts, context.owner) == (context.listener,):
        return label(Role.API, 0.8, ("program", "haproxy"), ("tree", "Serve's only front door"))
    return _worker(context)


def _fronts(tree: WorkloadTree, haproxy: int) -> tuple[Listener, ...]:
    opened = (one for one in tree.listeners[haproxy] if one.proto is Proto.TCP and one.address)
    return tuple(one for one in opened if one.port not in _HAPROXY_METRICS)


def _is_child_of_raylet(context: ListenerContext) -> bool:
    tree = context.tree
    parent = tree.parents.get(context.owner, 0)
    claim = tree.claims.get(parent)
    return claim is not None and claim.part == "raylet" and claim.launched


def _worker_ports(context: ListenerContext) -> range:
    for pid in context.tree.line(context.owner):
        if context.tree.part_of(pid) == "raylet":
            flags = context.tree.once(_flags, pid)
            first, last = flags.number("min-worker-port"), flags.number("max-worker-port")
            return range(first or 10002, (last or 19999) + 1)
    return range(0)


def _worker(context: ListenerContext) -> Label:
    """Workers, actors and drivers: the core worker's gRPC, and what user code opens."""
    listener = context.listener
    if listener.port in _worker_ports(context) and listener.is_wildcard:
        return label(Role.RAY_WORKER, 0.95, ("title", "Ray worker"), ("flag", "worker ports"))
    if found := library_label(context):
        return found
    nothing_seen = listener.backlog is None and listener.queue_limit is None
    if listener.is_wildcard and (nothing_seen or asked(listener, GRPC_BACKLOG)):
        return label(Role.RAY_WORKER, 0.9, ("tree", "Ray worker"), ("address", "wildcard"))
    return unknown(context)


_LABELS = {
    "gcs": _gcs,
    "raylet": _raylet,
    "dashboard": _dashboard,
    "helper": unknown,
    "agent": _agent,
    "proxy": _proxy,
}
# Parts whose listeners all have one role.
_ONE_ROLE = {
    "runtime-env-agent": label(Role.RAY_RUNTIME_ENV_AGENT, 0.95, ("title", "RuntimeEnvAgent")),
    "monitor": label(Role.RAY_METRICS, 0.95, ("tree", "autoscaler monitor")),
    "client-server": label(Role.RAY_CLIENT_SERVER, 0.95, ("tree", "ray.util.client.server")),
}

RULES = StackRules(Stack.RAY, claim, label_listener, name, frozenset({*_NATIVE, "ray"}))
