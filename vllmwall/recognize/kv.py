"""Key-value stores and transfer engines beside a server: Mooncake, NIXL, LMCache.

Facts: mooncake 0.3.13, nixl 1.5.1 and lmcache 0.5.6, seen live. None of them has an API for
clients; metrics have a role of their own, all else is ``kv-transfer``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vllmwall.model import Label, Listener, Process, Role, Stack
from vllmwall.recognize.commandline import read_flags, whole_number
from vllmwall.recognize.fingerprints import (
    ASYNCIO_BACKLOG,
    GRPC_BACKLOG,
    PROMETHEUS_BACKLOG,
    asked,
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

_PROGRAMS = {
    "mooncake_master": Stack.MOONCAKE,
    "mooncake_client": Stack.MOONCAKE,
    "mooncake_http_metadata_server": Stack.MOONCAKE,
    "mc_store_rest_server": Stack.MOONCAKE,
    "transfer_engine_bench": Stack.MOONCAKE,
    "lmcache_server": Stack.LMCACHE,
    "lmcache_v0_server": Stack.LMCACHE,
    "lmcache_controller": Stack.LMCACHE,
}
_MODULES = {
    "mooncake.http_metadata_server": Stack.MOONCAKE,
    "mooncake.mooncake_store_service": Stack.MOONCAKE,
    "mooncake.store_service": Stack.MOONCAKE,
    "mooncake.cli": Stack.MOONCAKE,
    "lmcache.v1.server": Stack.LMCACHE,
    "lmcache.server": Stack.LMCACHE,
    "lmcache.v1.multiprocess.server": Stack.LMCACHE,
    "lmcache.v1.multiprocess.http_server": Stack.LMCACHE,
    "lmcache.v1.api_server": Stack.LMCACHE,
    "lmcache.v1.mp_coordinator": Stack.LMCACHE,
}
_LMCACHE_COMMANDS = frozenset({"server", "coordinator", "controller"})
_METRICS_PORTS = {Stack.MOONCAKE: 9003, Stack.LMCACHE: 9090, Stack.NIXL: 9090}
_METRICS_FLAGS = ("metrics-port", "prometheus-port")


def claim(candidate: Candidate) -> Claim | None:
    """A store that was started as a program of its own."""
    command = candidate.command
    stack = _PROGRAMS.get(command.name) or command.pick(_MODULES)
    if stack is None and _is_lmcache(candidate):
        stack = Stack.LMCACHE
    return Claim(stack, "store", launched=True) if stack else None


def _is_lmcache(candidate: Candidate) -> bool:
    command = candidate.command
    started = command.name == "lmcache" or command.runs("lmcache.cli.main")
    return started and command.words[:1] != () and command.words[0] in _LMCACHE_COMMANDS


def claim_by_listeners(candidate: Candidate, listeners: Sequence[Listener]) -> Claim | None:
    """A plain Python that holds a transfer engine: by libraries, else by what it listens on."""
    if not candidate.is_python:
        return None
    if _has_transfer_pair(candidate.process, listeners) and candidate.may_have("mooncake"):
        return Claim(Stack.MOONCAKE, "engine")
    if candidate.has("mooncake"):
        return Claim(Stack.MOONCAKE, "engine")
    ucx = candidate.has_thread("async") and _is_on_each_interface(listeners)
    if candidate.has("nixl") or (ucx and candidate.may_have("ucx", "nixl")):
        return Claim(Stack.NIXL, "agent")
    return None


def _has_transfer_pair(process: Process, listeners: Sequence[Listener]) -> bool:
    """Mooncake over TCP: a handshake port on 0.0.0.0 and a data port on ``[::]``."""
    pair = [one for one in listeners if _in_range(one, process.env)]
    return {one.address.version for one in pair if one.address} == {4, 6}


def _is_on_each_interface(listeners: Sequence[Listener]) -> bool:
    """UCX over TCP listens on each interface by its address, loopback too."""
    ucx = [one for one in listeners if asked(one, GRPC_BACKLOG) and not one.is_wildcard]
    return {one.is_loopback for one in ucx} == {True, False}


def in_transfer_range(context: ListenerContext) -> bool:
    """A port of Mooncake's transfer engine: all addresses, backlog 128, its range."""
    return _in_range(context.listener, context.process.env)


def _in_range(listener: Listener, env: Mapping[str, str]) -> bool:
    first = whole_number(env.get("MC_MIN_RPC_PORT", "")) or 15000
    last = whole_number(env.get("MC_MAX_RPC_PORT", "")) or 17000
    ports = range(first, last + 1)
    return listener.is_wildcard and listener.port in ports and asked(listener, ASYNCIO_BACKLOG)


def name(tree: WorkloadTree) -> str:
    """The program, or the script that holds the engine."""
    command = tree.candidate(tree.root).command
    fallback = tree.claims[tree.root].stack.value
    if tree.part_of(tree.root) == "store":
        return short_name(command.name, fallback)
    return script_name((command.script,), fallback)


def label_listener(context: ListenerContext) -> Label:
    """The role of one listener of a store or transfer engine."""
    if context.is_unix:
        return unknown(context)
    claim = context.tree.claim_of(context.owner)
    if claim.part == "store":
        return _metrics(context, claim.stack) or label(
            Role.KV_TRANSFER, 0.9, ("tree", f"{claim.stack.value} store")
        )
    found = library_label(context)
    if found is not None and found.role is not Role.ZMQ:
        return found
    return label(Role.KV_TRANSFER, 0.7, ("tree", f"{claim.stack.value} in a Python process"))


def _metrics(context: ListenerContext, stack: Stack) -> Label | None:
    """Prometheus of a store, unless the store itself is configured to use that port."""
    command = context.tree.candidate(context.owner).command
    port = context.listener.port
    flags = read_flags(command.args, (*_METRICS_FLAGS, "port", "rpc-port", "http-port"))
    if port in (flags.number(one) for one in ("port", "rpc-port", "http-port")):
        return None
    if port in (flags.number(one) for one in _METRICS_FLAGS):
        return label(Role.METRICS, 0.95, ("flag", f"metrics port {port}"))
    if port == _METRICS_PORTS[stack] and str(port) not in command.args:
        return label(Role.METRICS, 0.85, ("default-port", f"metrics port {port}"))
    if asked(context.listener, PROMETHEUS_BACKLOG):
        return label(Role.METRICS, 0.8, ("backlog", "5"))
    return None


MOONCAKE = StackRules(
    Stack.MOONCAKE,
    claim,
    label_listener,
    name,
    frozenset({*_PROGRAMS, "lmcache", "mooncake"}),
    claim_by_listeners,
)
NIXL = StackRules(Stack.NIXL, lambda _: None, label_listener, name)
LMCACHE = StackRules(Stack.LMCACHE, lambda _: None, label_listener, name)
