"""The library that opened a listener, by backlog of ``listen()``, thread names and address.

The argument of ``listen()`` and the names of an owner's threads identify most libraries (measured
with vLLM 0.32, torch 2.13, Ray 2.60: uvicorn 2048, TCPStore and gloo -1, ZMQ 100, TensorPipe 128,
UCX and gRPC 4096, NCCL 16384, prometheus_client 5). sock_diag shows min(backlog, somaxconn) only;
then threads, address and age decide. All roles here are internal, so a weak guess costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vllmwall.model import Label, Listener, Role, Stack
from vllmwall.recognize.stack_rules import Candidate, ListenerContext, WorkloadTree, label

UVICORN_BACKLOG = 2048
ZMQ_BACKLOG = 100
ASYNCIO_BACKLOG = 128
PROMETHEUS_BACKLOG = 5
GRPC_BACKLOG = 4096
NCCL_BACKLOG = 16384
SOMAXCONN_BACKLOG = -1

STORE_THREADS = ("pt_tcpstore",)
TORCH_THREADS = ("pt_tcpstore", "pt_elastic", "pt_nccl", "pt_gloo", "gloo_", "TP_UV_loop")


# made once: a node has hundreds of them
_GLOO = label(Role.GLOO, 0.97, ("backlog", "-1"), ("threads", "gloo_tcp_loop"))
_TENSORPIPE = label(Role.TENSORPIPE, 0.97, ("backlog", "128"), ("threads", "TP_UV_loop"))


def asked(listener: Listener, backlog: int) -> bool:
    """``listen()`` was called with this backlog, as far as can be seen."""
    seen = listener.queue_limit if listener.backlog is None else listener.backlog
    return seen == backlog


def asked_for_most(context: ListenerContext) -> bool:
    """The accept queue is as long as the kernel allows: -1, or more than somaxconn."""
    listener = context.listener
    if listener.backlog is not None:
        return listener.backlog == SOMAXCONN_BACKLOG or listener.backlog >= GRPC_BACKLOG
    return is_longest(listener, context.queue_cap)


def is_longest(listener: Listener, cap: int) -> bool:
    """sock_diag shows the longest queue of the namespace, and one that a default can make."""
    return listener.queue_limit is not None and listener.queue_limit >= max(cap, ASYNCIO_BACKLOG)


def library_label(context: ListenerContext) -> Label | None:
    """The role by the library that opened this TCP listener; None: not recognized."""
    owner = context.tree.candidate(context.owner)
    for test in _TESTS:
        found = test(context, owner)
        if found is not None:
            return found
    return None


def _tensorpipe(context: ListenerContext, owner: Candidate) -> Label | None:
    listener = context.listener
    if not asked(listener, ASYNCIO_BACKLOG) or listener.is_wildcard:
        return None
    if not owner.has_thread("TP_"):
        return None
    return _TENSORPIPE


def _worker_server(context: ListenerContext, owner: Candidate) -> Label | None:
    if asked(context.listener, PROMETHEUS_BACKLOG) and owner.has_thread("pt_workerserver"):
        return label(Role.DEBUG, 0.8, ("backlog", "5"), ("threads", "pt_workerserver"))
    return None


def _zmq(context: ListenerContext, owner: Candidate) -> Label | None:
    if not asked(context.listener, ZMQ_BACKLOG):
        return None
    if owner.has_thread("ZMQbg/"):
        return label(Role.ZMQ, 0.95, ("backlog", "100"), ("threads", "ZMQbg"))
    if owner.process.threads:
        return None
    return label(Role.ZMQ, 0.7, ("backlog", "100"))


def _nccl(context: ListenerContext, owner: Candidate) -> Label | None:
    if context.listener.backlog != NCCL_BACKLOG:
        return None
    return label(Role.NCCL, 0.9, ("backlog", "16384"), ("address", "one interface"))


def _ucx(context: ListenerContext, owner: Candidate) -> Label | None:
    listener = context.listener
    if listener.backlog != GRPC_BACKLOG or listener.is_wildcard:
        return None
    if not (owner.has_thread("async") or owner.has("ucx", "nixl")):
        return None
    return label(Role.KV_TRANSFER, 0.85, ("backlog", "4096"), ("threads", "UCX async"))


def _wide_store(context: ListenerContext, owner: Candidate) -> Label | None:
    """A TCPStore listens on ``[::]`` whatever host it was given; nothing else of torch does."""
    listener = context.listener
    if not _is_wide_v6(listener) or not asked_for_most(context):
        return None
    if listener.backlog not in (None, SOMAXCONN_BACKLOG):
        return None
    if owner.has_thread(*STORE_THREADS):
        return label(Role.TCPSTORE, 0.97, ("address", "[::]"), ("threads", "pt_tcpstore"))
    if owner.has_thread("server.poll", "grpc"):
        return None
    if listener.backlog == SOMAXCONN_BACKLOG and owner.may_have("torch"):
        return label(Role.TCPSTORE, 0.8, ("address", "[::]"), ("backlog", "-1"))
    if not owner.process.threads and not context.tree.has_stack(Stack.RAY):
        return label(Role.TCPSTORE, 0.5, ("address", "[::]"))
    return None


def _one_address(context: ListenerContext, owner: Candidate) -> Label | None:
    """Gloo, a TCPStore on a socket bound beforehand, UCX or NCCL: all ask for the longest."""
    listener, tree = context.listener, context.tree
    if not _may_be_collective(listener, context.queue_cap):
        return None
    group = tree.once(_collectives, context.owner)
    if group.stores and listener in group.stores:
        return label(Role.TCPSTORE, 0.85, ("threads", "pt_tcpstore"), ("order", "opened first"))
    if listener.backlog == SOMAXCONN_BACKLOG:
        return _gloo(owner)
    return _by_age(group.ages.get(listener), owner)


@dataclass(frozen=True)
class _Collectives:
    """One owner's listeners on one address that asked for the longest queue.

    ``stores`` are TCPStores; ``ages`` ranks those others whose raw backlog is not known.
    """

    stores: frozenset[Listener]
    ages: Mapping[Listener, int]


def _collectives(tree: WorkloadTree, pid: int) -> _Collectives:
    owned = tree.listeners[pid]
    group = [one for one in owned if _may_be_collective(one, tree.queue_caps[one.namespace])]
    stores = _prebound_stores(owned, group, tree.candidate(pid))
    rest = [one for one in group if one.backlog is None and one not in stores]
    return _Collectives(stores, {one: age for age, one in enumerate(rest)})


def _gloo(owner: Candidate) -> Label | None:
    if owner.has_thread("gloo_tcp_loop"):
        return _GLOO
    if owner.has_thread("tokio") or not owner.may_have("torch"):
        return None
    return label(Role.GLOO, 0.7, ("backlog", "-1"), ("address", "one interface"))


def _by_age(age: int | None, owner: Candidate) -> Label | None:
    """No raw backlog: gloo has one thread for each listener, and comes before the others."""
    if age is None:
        return None
    if age < owner.process.threads.get("gloo_tcp_loop", 0):
        return label(Role.GLOO, 0.85, ("threads", "gloo_tcp_loop"), ("order", "opened early"))
    if owner.has_thread("async") or owner.has("ucx", "nixl"):
        return label(Role.KV_TRANSFER, 0.7, ("threads", "UCX async"), ("order", "opened late"))
    if owner.has("nccl") or owner.has_thread("pt_nccl"):
        return label(Role.NCCL, 0.7, ("library", "nccl"), ("address", "one interface"))
    if not owner.process.threads and owner.may_have("torch"):
        return label(Role.GLOO, 0.5, ("address", "one interface"))
    return None


def _prebound_stores(
    owned: Sequence[Listener], group: Sequence[Listener], owner: Candidate
) -> frozenset[Listener]:
    """TCPStores on one address, seen by more store threads than wildcard stores.

    vLLM binds the socket of its data-parallel group itself (``_pick_stateless_dp_port``) and
    calls listen(128) before torch calls listen(-1), so either backlog may have been seen. The
    store comes before the groups that meet in it.
    """
    threads = owner.process.threads
    stores = sum(count for name, count in threads.items() if name.startswith(STORE_THREADS))
    stores -= sum(_is_wide_v6(one) and _asked_like_torch(one) for one in owned)
    fitting = [one for one in group if _asked_like_torch(one)]
    fitting.sort(key=lambda one: (one.backlog != ASYNCIO_BACKLOG, one.order))
    return frozenset(fitting[: max(stores, 0)])


def _asked_like_torch(listener: Listener) -> bool:
    return listener.backlog in (None, SOMAXCONN_BACKLOG, ASYNCIO_BACKLOG)


def _may_be_collective(listener: Listener, cap: int) -> bool:
    if listener.address is None or listener.is_wildcard:
        return False
    if listener.backlog in (SOMAXCONN_BACKLOG, ASYNCIO_BACKLOG):
        return True
    return listener.backlog is None and is_longest(listener, cap)


def _is_wide_v6(listener: Listener) -> bool:
    return listener.is_wildcard and listener.address is not None and listener.address.version == 6


_Test = Callable[[ListenerContext, Candidate], Label | None]
_TESTS: tuple[_Test, ...] = (
    _tensorpipe,
    _worker_server,
    _zmq,
    _nccl,
    _ucx,
    _wide_store,
    _one_address,
)
