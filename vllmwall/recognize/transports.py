"""Claims by transport: what a process maps and how it listens, not by who started it.

The transport is the danger and is the same in every framework, while launchers are an open world.
A library that is only some package's dependency (libnccl of a CUDA build of torch, jaxlib) claims
nothing by itself: something must listen beyond loopback that no web server opens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vllmwall.model import Label, Listener, Process, Proto, Role, Stack
from vllmwall.recognize.fingerprints import (
    ASYNCIO_BACKLOG,
    NCCL_BACKLOG,
    PROMETHEUS_BACKLOG,
    SOMAXCONN_BACKLOG,
    TORCH_THREADS,
    UVICORN_BACKLOG,
    ZMQ_BACKLOG,
    asked,
    asked_for_most,
    is_longest,
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

# Programs map these to use them: any listener beyond loopback counts.
_USED: Mapping[str, Stack] = {
    "mpi": Stack.MPI,
    "gloo": Stack.TORCH,
    "nixl": Stack.NIXL,
    "mooncake": Stack.MOONCAKE,
    "ucx": Stack.UCX,
}
# Packages map these whether they use them or not.
_DEPENDENCIES: Mapping[str, Stack] = {
    "torch": Stack.TORCH,
    "jax": Stack.JAX,
    "nccl": Stack.NCCL,
}
TRANSPORTS = frozenset({*_USED, *_DEPENDENCIES, "vllm", "sglang", "ray", "lmdeploy", "lmcache"})
_LOOKED_FOR = frozenset({*_USED, *_DEPENDENCIES, "cuda"})
_WEB_QUEUES = (PROMETHEUS_BACKLOG, ZMQ_BACKLOG, ASYNCIO_BACKLOG, 511, 1024, UVICORN_BACKLOG, 50)
_PROXY_WORDS = ("proxy", "disagg", "xpyd", "prefill")
_GRPC_THREADS = ("grpc_global_tim", "event_engine")


def _jax_label(context: ListenerContext) -> Label:
    """The coordinator's gRPC, and gloo's listeners (jaxlib names no threads)."""
    if not context.is_unix and asked_for_most(context):
        if _like_gloo(context.listener):
            return label(Role.GLOO, 0.8, ("program", "jax"), ("address", "one interface"))
        if context.listener.is_wildcard:
            return label(Role.RENDEZVOUS, 0.8, ("program", "jax"), ("address", "wildcard"))
    return _by_library(context, None)


def _by_library(context: ListenerContext, rest: Role | None) -> Label:
    if context.is_unix:
        return unknown(context)
    found = library_label(context)
    if found is None and rest is not None:
        found = label(rest, 0.6, ("library", rest.value))
    return found or unknown(context)


def _rules(stack: Stack, rest: Role | None) -> StackRules:
    return StackRules(stack, lambda _: None, lambda one: _by_library(one, rest), name_of)


RULES = (
    StackRules(Stack.JAX, lambda _: None, _jax_label, name_of),
    _rules(Stack.NCCL, Role.NCCL),
    _rules(Stack.MPI, Role.MPI),
    _rules(Stack.UCX, Role.KV_TRANSFER),
)
"""The stacks that only a transport shows."""


def carries_transport(process: Process) -> bool:
    """It maps a transport or a serving engine, or has a thread of one. False also means unread."""
    candidate = Candidate.of(process)
    return candidate.has(*TRANSPORTS) or candidate.has_thread(*TORCH_THREADS, "worker.io")


def claim_by_transport(
    candidate: Candidate, listeners: Sequence[Listener], queue_caps: Mapping[int, int]
) -> Claim | None:
    """The claim on an owner that no stack knows; None: nothing shows a transport."""
    if not _is_worth_a_look(candidate, listeners):
        return None
    beyond = [one for one in listeners if one.proto is Proto.TCP and not one.is_loopback]
    if not beyond:
        return None
    if any(one.backlog == NCCL_BACKLOG for one in beyond):
        return Claim(_stack_of(candidate, _DEPENDENCIES) or Stack.NCCL, "rank")
    if stack := _stack_of(candidate, _USED):
        return Claim(stack, "rank")
    if candidate.is_python and candidate.has_thread("tokio"):
        return None  # a web server in Rust asks for the longest queue too
    shapes = [one for one in beyond if _is_no_web_server(one, queue_caps)]
    if shapes and (stack := _stack_of(candidate, _DEPENDENCIES)):
        return Claim(stack, "rank")
    if _registers(candidate, beyond):
        return Claim(Stack.VLLM, "proxy")
    return _linked_in(candidate, shapes) or _jax_unread(candidate, shapes)


def _is_worth_a_look(candidate: Candidate, listeners: Iterable[Listener]) -> bool:
    """A cheap test: nearly all programs that listen carry nothing of ours."""
    process = candidate.process
    if process.libraries and not process.libraries.isdisjoint(_LOOKED_FOR):
        return True
    if any(one.backlog == NCCL_BACKLOG for one in listeners):
        return True
    return bool(process.threads) and candidate.has_thread("ZMQbg/", *_GRPC_THREADS)


def _stack_of(candidate: Candidate, libraries: Mapping[str, Stack]) -> Stack | None:
    return next((stack for name, stack in libraries.items() if candidate.has(name)), None)


def _is_no_web_server(listener: Listener, queue_caps: Mapping[int, int]) -> bool:
    """Its queue is none that web servers ask for."""
    if listener.backlog is not None:
        return listener.backlog not in _WEB_QUEUES
    if listener.queue_limit is None:
        return True
    if listener.queue_limit in _WEB_QUEUES:
        return False
    return is_longest(listener, queue_caps.get(listener.namespace, 0))


def _registers(candidate: Candidate, beyond: Iterable[Listener]) -> bool:
    """A proxy of prefill and decode where instances register by ZMQ: who reaches that port gets
    prompts. ZMQ alone is no transport of ours; the program's own name is the other half."""
    name = candidate.command.name.lower()
    if not candidate.has_thread("ZMQbg/") or not any(word in name for word in _PROXY_WORDS):
        return False
    return any(asked(one, ZMQ_BACKLOG) for one in beyond)


def _linked_in(candidate: Candidate, shapes: Iterable[Listener]) -> Claim | None:
    """NCCL is a part of the program itself: CUDA, and a listener on one interface's address."""
    if not candidate.has("cuda") or candidate.has_thread("tokio"):
        return None
    return Claim(Stack.NCCL, "rank") if any(not one.is_wildcard for one in shapes) else None


def _jax_unread(candidate: Candidate, shapes: Iterable[Listener]) -> Claim | None:
    """Gloo's listener beside gRPC's threads in a Python without torch: ``jax.distributed``.

    gRPC itself never listens on an IPv4 socket of one address: it maps it into IPv6.
    """
    if not candidate.is_python or not candidate.has_thread(*_GRPC_THREADS):
        return None
    if candidate.has_thread("worker.io") or candidate.may_have("torch", "ray"):
        return None
    return Claim(Stack.JAX, "rank") if any(map(_like_gloo, shapes)) else None


def _like_gloo(listener: Listener) -> bool:
    address = listener.address
    if address is None or address.version != 4 or listener.is_wildcard:
        return False
    return listener.backlog in (None, SOMAXCONN_BACKLOG)
