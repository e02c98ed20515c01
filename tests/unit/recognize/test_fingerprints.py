"""Libraries told apart by backlog, threads, address and age."""

from __future__ import annotations

import pytest

from tests.unit.recognize.node_builder import ZMQ_THREADS, process, renamed, roles, seen, tcp

ROOT = "/venv/bin/python3 /venv/bin/vllm serve m"
HOST = "10.0.0.7"


def labels(*listeners: object, worker: str = "VLLM::Worker", **fields: object) -> list[str]:
    """The roles of a worker's listeners, in their order."""
    found = seen(process(10, ROOT), renamed(12, worker, 10, **fields), *listeners)
    by_port = roles(found)
    return [by_port[one.port] for one in listeners]


def test_prebound_store_is_the_oldest_on_one_address() -> None:
    """More store threads than wildcard stores: the first one-address listener is a store."""
    threads = {"pt_tcpstore_uv": 2, "gloo_tcp_loop": 2}
    listeners = [
        tcp(1, HOST, 12, backlog=-1),
        tcp(2, HOST, 12, backlog=-1),
        tcp(3, HOST, 12, backlog=-1),
        tcp(4, "::", 12, backlog=-1),
    ]
    assert labels(*listeners, threads=threads) == ["tcpstore", "gloo", "gloo", "tcpstore"]


def test_prebound_store_may_show_its_first_backlog() -> None:
    """listen(128) comes from vLLM, listen(-1) from torch; the event may have told either."""
    threads = {"pt_tcpstore_uv": 1, "gloo_tcp_loop": 1}
    listeners = [tcp(1, HOST, 12, backlog=-1), tcp(2, HOST, 12, backlog=128)]
    assert labels(*listeners, threads=threads) == ["gloo", "tcpstore"]


@pytest.mark.parametrize(
    ("fields", "role"),
    [
        ({"threads": {"async": 1, "gloo_tcp_loop": 1}}, "kv-transfer"),
        ({"threads": {"gloo_tcp_loop": 1}, "libraries": frozenset({"nixl"})}, "kv-transfer"),
        ({"threads": {"gloo_tcp_loop": 1}, "libraries": frozenset({"nccl"})}, "nccl"),
        ({"threads": {"gloo_tcp_loop": 1, "pt_nccl_watchdg": 1}}, "nccl"),
        ({"threads": {"gloo_tcp_loop": 1}}, "unknown"),
    ],
)
def test_age_decides_where_only_the_queue_is_seen(fields: dict[str, object], role: str) -> None:
    """One gloo thread for each gloo listener, and gloo comes first."""
    listeners = [tcp(1, HOST, 12, queue_limit=4096), tcp(2, HOST, 12, queue_limit=4096)]
    assert labels(*listeners, **fields) == ["gloo", role]


def test_nothing_but_the_queue() -> None:
    """In a worker whose threads could not be read, one address is gloo and [::] a store."""
    listeners = [tcp(1, HOST, 12, queue_limit=4096), tcp(2, "::", 12, queue_limit=4096)]
    assert labels(*listeners) == ["gloo", "tcpstore"]
    assert labels(*listeners, libraries=frozenset({"zmq"})) == ["unknown", "tcpstore"]


def test_gloo_is_in_torch() -> None:
    """Where torch is not mapped, or a server of Rust runs, a backlog of -1 is somebody else's."""
    one = tcp(1, HOST, 12, backlog=-1)
    assert labels(one, libraries=frozenset({"torch"})) == ["gloo"]
    assert labels(one, libraries=frozenset({"zmq"})) == ["unknown"]
    assert labels(one, libraries=frozenset({"torch"}), threads={"tokio-runtime-w": 1}) == [
        "unknown"
    ]


def test_raw_backlogs() -> None:
    """NCCL asks for 16384, UCX for 4096, ZMQ for 100."""
    listeners = [
        tcp(1, HOST, 12, backlog=16384),
        tcp(2, HOST, 12, backlog=4096),
        tcp(3, HOST, 12, backlog=100),
    ]
    fields = {"threads": {"async": 1, **ZMQ_THREADS}}
    assert labels(*listeners, **fields) == ["nccl", "kv-transfer", "zmq"]
    assert labels(*listeners[1:], libraries=frozenset({"ucx"})) == ["kv-transfer", "zmq"]
    assert labels(*listeners[1:], threads={"x": 1}) == ["unknown", "unknown"]


def test_grpc_on_all_addresses_is_no_store() -> None:
    """gRPC also asks for the longest queue; its threads and its backlog tell."""
    grpc = {"threads": {"server.poll0": 1, "grpc_global_tim": 1}}
    assert labels(tcp(1, "::", 12, queue_limit=4096), **grpc) == ["unknown"]
    assert labels(tcp(1, "::", 12, backlog=4096), threads={"pt_tcpstore": 1}) == ["unknown"]


def test_tokio_in_a_worker_is_no_gloo() -> None:
    """Rust asks for -1 as well."""
    assert labels(tcp(1, HOST, 12, backlog=-1), threads={"tokio-runtime-w": 1}) == ["unknown"]
    store = tcp(2, "::", 12, backlog=-1)
    assert labels(store, threads={"x": 1}, libraries=frozenset({"zmq"})) == ["unknown"]
