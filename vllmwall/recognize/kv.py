"""Key-value stores and transfer engines beside a server: Mooncake, NIXL, LMCache.

Facts: mooncake 0.3.13, nixl 1.5.1 and lmcache 0.5.6, seen live. None of them has an API for
clients; metrics have a role of their own, all else is ``kv-transfer``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vllmwall.model import Label, Listener, Process, Role, Stack
from vllmwall.recognize.commandline import whole_number
from vllmwall.recognize.fingerprints import (
    ASYNCIO_BACKLOG,
    GRPC_BACKLOG,
    asked,
    library_label,
)
from vllmwall.recognize.rows import name_of
from vllmwall.recognize.stack_rules import (
    Candidate,
    Claim,
    ListenerContext,
    StackRules,
    label,
    unknown,
)


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


def label_listener(context: ListenerContext) -> Label:
    """The role of one listener of a transfer engine; stores are rows of `stacks.toml`."""
    if context.is_unix:
        return unknown(context)
    found = library_label(context)
    if found is not None and found.role is not Role.ZMQ:
        return found
    stack = context.tree.claim_of(context.owner).stack
    return label(Role.KV_TRANSFER, 0.7, ("tree", f"{stack.value} in a Python process"))


MOONCAKE = StackRules(
    Stack.MOONCAKE, lambda _: None, label_listener, name_of, frozenset(), claim_by_listeners
)
NIXL = StackRules(Stack.NIXL, lambda _: None, label_listener, name_of)
LMCACHE = StackRules(Stack.LMCACHE, lambda _: None, label_listener, name_of)
