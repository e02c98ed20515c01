"""SGLang: the server, what it starts, and the routers (also vllm-router, the same program).

Facts: sglang 0.5.23 read, sglang-router 0.3.2 seen live. The router renames its root process
and leaves neither command line nor environment: flags are those seen at exec, or nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vllmwall.model import Label, Listener, Proto, Role, Stack
from vllmwall.recognize.api import ApiCase, api_label
from vllmwall.recognize.commandline import Flags, read_flags
from vllmwall.recognize.fingerprints import (
    GRPC_BACKLOG,
    SOMAXCONN_BACKLOG,
    UVICORN_BACKLOG,
    library_label,
)
from vllmwall.recognize.names import script_name, short_name
from vllmwall.recognize.stack_rules import (
    Candidate,
    Claim,
    ListenerContext,
    StackRules,
    WorkloadTree,
    label,
    unknown,
)

_TITLE = re.compile(r"(?:sglang|sgl_diffusion|vllm|smg|amg)::([a-z_]+)")
_ROUTER_SCRIPTS = frozenset({"sglang-router", "sglang_router", "smg", "amg", "vllm-router"})
_MODULES = {
    "sglang.launch_server": "server",
    "sglang.launch_server_multimodal_gen": "server",
    "sglang_router.launch_server": "router",
    "sglang_router.launch_router": "router",
    "sglang_router": "router",
    "sglang_router.cli": "router",
    "vllm_router.launch_router": "router",
    "vllm_router": "router",
    "vllm_router.app": "router",
    "smg.launch_router": "router",
    "smg": "router",
}
_PORTS = {"server": 30000, "router": 30000}
_PRODUCTION_STACK_PORT = 8001  # its router is Python, and has the same name as the one in Rust
_METRICS_PORT = 29000
_MESH_PORT = 39527
_KNOWN = (
    "config",
    "disaggregation-bootstrap-port",
    "encoder-bootstrap-port",
    "engine-info-bootstrap-port",
    "host",
    "kv-events-config",
    "model",
    "model-path",
    "nccl-port",
    "port",
    "prometheus-port",
    "smg-grpc-mode",
    "smg-http-sidecar-port",
)
_SERVER_BACKLOGS = frozenset({UVICORN_BACKLOG, SOMAXCONN_BACKLOG, 1024})
_BOOTSTRAP = {
    "disaggregation-bootstrap-port": (8998, Role.KV_TRANSFER),
    "encoder-bootstrap-port": (8997, Role.KV_TRANSFER),
    "engine-info-bootstrap-port": (6789, Role.RENDEZVOUS),
}


def claim(candidate: Candidate) -> Claim | None:
    """A server or router, or what a server starts."""
    part = _launched_part(candidate)
    if part:
        return Claim(Stack.SGLANG, part, launched=True)
    if match := _TITLE.match(candidate.title):
        return Claim(Stack.SGLANG, match.group(1))
    return None


def _launched_part(candidate: Candidate) -> str:
    command = candidate.command
    if command.name == "sglang":
        subcommand = next(iter(command.words), "")
        return {"serve": "server", "router": "router"}.get(subcommand, "")
    if command.name in _ROUTER_SCRIPTS:
        return "router"
    return command.pick(_MODULES) or ""


def name(tree: WorkloadTree) -> str:
    """The model, or ``router``."""
    if "router" in (part := tree.part_of(tree.root)):
        return "router"
    if part == "front":
        return script_name((tree.candidate(tree.root).command.script,), "sglang")
    flags = _flags(tree, tree.root)
    return short_name(flags.text("model-path") or flags.text("model") or "", "sglang")


def _flags(tree: WorkloadTree, pid: int) -> Flags:
    candidate = tree.candidate(pid)
    return read_flags(candidate.command.args, _KNOWN, settings=candidate.process.settings)


def label_listener(context: ListenerContext) -> Label:
    """The role of one listener of an SGLang tree."""
    if context.is_unix:
        return unknown(context)
    found = _server(context) if context.part in _PORTS else None
    return found or library_label(context) or _bootstrap(context) or unknown(context)


def _server(context: ListenerContext) -> Label | None:
    """API and metrics: only what the launched process itself owns."""
    tree, listener = context.tree, context.listener
    if not tree.claims[context.owner].launched:
        return _untold_router(context) if context.part == "router" else None
    flags = _flags(tree, context.owner)
    if listener.port == _metrics_port(flags, context.part):
        return label(Role.METRICS, 0.9, ("default-port", f"metrics on {listener.port}"))
    if listener is not tree.once(_last_at, context.owner)[listener.port]:
        return None  # metrics that were told the same port open first
    is_router, grpc = context.part == "router", flags.is_on("smg-grpc-mode")
    backlogs = None if is_router else frozenset({GRPC_BACKLOG}) if grpc else _SERVER_BACKLOGS
    wide_v6 = grpc or ":" in (flags.text("host") or "")
    case = ApiCase(_api_ports(tree, context.owner), _serves(context), backlogs, wide_v6)
    return api_label(context, case)


def _last_at(tree: WorkloadTree, pid: int) -> Mapping[int, Listener]:
    """The youngest listener at each port."""
    return {one.port: one for one in tree.listeners[pid]}


def _untold_router(context: ListenerContext) -> Label | None:
    """A router whose title took its command line: metrics open first, then the API alone. A third
    port (health checks) leaves open which is which."""
    if not context.tree.candidate(context.owner).has_thread("tokio"):
        return None
    first, last = context.tree.once(_ends, context.owner)
    if context.listener.port == _METRICS_PORT or context.listener is first:
        return label(Role.METRICS, 0.8, ("title", "router"), ("order", "opened first"))
    if context.listener is last:
        return label(Role.API, 0.8, ("title", "router"), ("order", "opened last"))
    return None


def _ends(tree: WorkloadTree, router: int) -> tuple[Listener | None, Listener | None]:
    """The first listener, where it can be the metrics', and the last one, where that is the API."""
    opened = [one for one in tree.listeners[router] if one.proto is Proto.TCP]
    rest = [one for one in opened if one.port not in (_METRICS_PORT, _MESH_PORT)]
    first = None if len(rest) < len(opened) or len(rest) < 2 else rest[0]
    is_api = len(rest) == (1 if first is None else 2)
    return first, rest[-1] if is_api else None


def _serves(context: ListenerContext) -> str:
    """The topmost launched process of the owner's line serves, not what it forked."""
    parts = (context.tree.part_of(pid) for pid in context.tree.line(context.owner)[1:])
    return "" if any(part in _PORTS for part in parts) else f"the {context.part} process itself"


def _metrics_port(flags: Flags, part: str) -> int:
    if part == "router":
        return flags.number("prometheus-port") or _METRICS_PORT
    if flags.is_on("smg-grpc-mode"):
        return flags.number("smg-http-sidecar-port") or (flags.number("port") or 30000) + 1
    return 0


def _api_ports(tree: WorkloadTree, pid: int) -> dict[int, str] | None:
    flags, settings = _flags(tree, pid), tree.processes[pid].settings
    port = flags.number("port")
    if port is None and flags.text("config") is not None and not settings:
        return None
    own = read_flags(tree.candidate(pid).command.args, _KNOWN)
    kind = "flag" if own.text("port") else "config" if flags.text("port") else "default-port"
    first = port or _PORTS[tree.part_of(pid)]
    found = {first + 10000 if flags.is_on("smg-grpc-mode") else first: kind}
    if kind == "default-port" and tree.candidate(pid).command.name == "vllm-router":
        found[_PRODUCTION_STACK_PORT] = kind
    return found


def _bootstrap(context: ListenerContext) -> Label | None:
    flags = _flags(context.tree, context.tree.root)
    for flag, (default, role) in _BOOTSTRAP.items():
        if context.listener.port == (flags.number(flag) or default):
            return label(role, 0.7, ("default-port", f"{flag} {context.listener.port}"))
    return None


RULES = StackRules(
    Stack.SGLANG,
    claim,
    label_listener,
    name,
    _ROUTER_SCRIPTS | {"sglang", "sgl"},
)
