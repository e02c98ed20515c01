"""SGLang, LMDeploy, and the key-value stores beside them."""

from __future__ import annotations

import pytest

from tests.unit.recognize.node_builder import (
    SPAWN,
    ZMQ_THREADS,
    api_ports,
    process,
    renamed,
    roles,
    seen,
    stacks,
    tcp,
    unix,
)
from vllmwall.model import Process, Stack

PYTHON = "/venv/bin/python3"
SGLANG = f"{PYTHON} -m sglang.launch_server --model-path org/m"
LMDEPLOY = f"{PYTHON} /venv/bin/lmdeploy serve"
HOST = "10.0.0.7"


def router(command: str) -> Process:
    """A router that renamed its root process."""
    words = tuple(command.split())
    return renamed(10, "sglang::router", 1, exec_argv=words, threads={"tokio-runtime-w": 3})


@pytest.mark.parametrize(
    "command",
    [
        f"{PYTHON} /venv/bin/sglang-router launch --port 31000",
        f"{PYTHON} /venv/bin/smg launch --port=31000",
        f"{PYTHON} -m sglang_router.launch_router --port 31000",
        f"{PYTHON} -m sglang_router.launch_server --port 31000",
        f"{PYTHON} /src/sglang_router/launch_router.py --port 31000",
        f"{PYTHON} /venv/bin/sglang router --port 31000",
    ],
)
def test_router_in_every_form(command: str) -> None:
    """Port and metrics come from the command line seen at exec."""
    found = seen(
        router(command),
        tcp(31000, "0.0.0.0", 10, backlog=-1),
        tcp(29000, "0.0.0.0", 10, backlog=128),
        tcp(30000, "0.0.0.0", 10, backlog=-1),
    )
    expected = {31000: "api", 29000: "metrics"}
    assert {port: role for port, role in roles(found).items() if port in expected} == expected
    assert api_ports(found) == {31000}
    assert stacks(found) == [("sglang", "router", 10)]


def test_router_metrics_follow_their_flag() -> None:
    """``--prometheus-port`` moves the metrics."""
    command = f"{PYTHON} -m sglang_router.launch_router --prometheus-port 29500"
    found = seen(router(command), tcp(29500, HOST, 10, backlog=128), tcp(30000, HOST, 10))
    assert roles(found) == {29500: "metrics", 30000: "api"}


def test_router_without_memory_is_closed() -> None:
    """Its title says what it is, but a title opens nothing: the user has to declare the API."""
    found = seen(renamed(10, "sglang::router", 1, exec_argv=None), tcp(30000, "0.0.0.0", 10))
    assert roles(found) == {30000: "unknown"}
    assert stacks(found) == [("sglang", "router", 10)]


def test_sglang_server_and_its_children() -> None:
    """The main process keeps its command line; children are titled in lower case."""
    threads = {**ZMQ_THREADS, "pt_tcpstore_uv": 1, "gloo_tcp_loop": 1}
    found = seen(
        process(10, f"{SGLANG} --port 31000"),
        renamed(11, "sglang::scheduler_TP0", 10, threads=threads),
        renamed(12, "sglang::detokenizer", 10, threads=ZMQ_THREADS),
        tcp(31000, "127.0.0.1", 10, backlog=2048),
        tcp(31000, HOST, 11, backlog=2048),
        tcp(22500, "::", 11, backlog=-1),
        tcp(40001, HOST, 11, backlog=-1),
        tcp(31234, "127.0.0.1", 12, backlog=100),
        tcp(8998, "0.0.0.0", 10, backlog=128),
        tcp(6789, "0.0.0.0", 10, backlog=128),
        unix("/tmp/x", 11),
    )
    labels = [one.label.role.value for one in found.workloads[0].listeners]
    expected = ["api", "unknown", "tcpstore", "gloo", "zmq", "kv-transfer", "rendezvous", "unix"]
    assert labels == expected
    assert stacks(found) == [("sglang", "m", 10)]


def test_sglang_settings_and_defaults() -> None:
    """YAML below the command line; 30000 when neither names a port."""
    yaml = process(10, f"{SGLANG} --config f.yaml", settings={"port": "31000"})
    listeners = [tcp(port, HOST, 10, backlog=2048) for port in (31000, 30000)]
    assert api_ports(seen(yaml, *listeners)) == {31000}
    unread = process(10, f"{SGLANG} --config f.yaml")
    assert api_ports(seen(unread, tcp(31000, HOST, 10, backlog=2048), tcp(9, HOST, 10))) == {31000}
    serve = process(10, f"{PYTHON} /venv/bin/sglang serve --model org/m")
    assert api_ports(seen(serve, *listeners)) == {30000}


def test_sglang_grpc_mode() -> None:
    """``--smg-grpc-mode``: gRPC at port + 10000, metrics beside the port."""
    server = process(10, f"{SGLANG} --smg-grpc-mode --port 31000")
    found = seen(server, tcp(41000, "::", 10, backlog=4096), tcp(31001, HOST, 10, backlog=128))
    assert roles(found) == {41000: "api", 31001: "metrics"}


def test_sglang_forked_worker_is_no_server() -> None:
    """A copy of the server's command line below it does not serve."""
    found = seen(
        process(10, f"{SGLANG} --config f"),
        process(11, f"{SGLANG} --config f", 10),
        tcp(40000, HOST, 11, backlog=2048),
    )
    assert roles(found) == {40000: "unknown"}


def test_sglang_engine_in_a_script() -> None:
    """``sglang.Engine()``: the script is the root; a web server on its own port is unproven."""
    found = seen(
        process(10, f"{PYTHON} gen.py"),
        renamed(11, "sglang::scheduler", 10),
        tcp(30000, HOST, 10, backlog=2048),
    )
    assert stacks(found) == [("sglang", "gen.py", 10)]
    assert roles(found) == {30000: "web"}


def test_sglang_words_are_no_server() -> None:
    """The command without a subcommand, and other subcommands, serve nothing."""
    for command in (f"{PYTHON} /venv/bin/sglang", f"{PYTHON} /venv/bin/sglang generate"):
        assert not stacks(seen(process(10, command)))


def test_lmdeploy_api_server() -> None:
    """``api_server`` on its flag or 23333; TCPStore and ZMQ beside it are internal."""
    server = process(10, f"{LMDEPLOY} api_server org/m", threads=ZMQ_THREADS)
    found = seen(
        server,
        tcp(23333, "0.0.0.0", 10, backlog=2048),
        tcp(40001, "127.0.0.1", 10, backlog=100),
        tcp(40002, "::", 10, backlog=-1),
        tcp(40003, HOST, 10, backlog=77),
        unix("/tmp/x", 10),
    )
    assert list(roles(found).values()) == ["api", "zmq", "tcpstore", "unknown", "unix"]
    assert stacks(found) == [("lmdeploy", "m", 10)]
    flag = process(10, f"{PYTHON} -m lmdeploy serve api_server m --server-port 9000")
    assert api_ports(seen(flag, tcp(9000, HOST, 10), tcp(23333, HOST, 10))) == {9000}


def test_lmdeploy_data_parallel_children_serve_on_hidden_ports() -> None:
    """With --dp its spawned children are web servers, on ports that nobody can read."""
    child = process(11, "", 10, argv=SPAWN, exec_argv=SPAWN)
    grandchild = process(12, "", 11, argv=SPAWN, exec_argv=SPAWN)
    listeners = [
        tcp(3123, HOST, 11, backlog=2048),
        tcp(3124, HOST, 11, backlog=128),
        tcp(3125, HOST, 12, backlog=2048),
    ]
    root = process(10, f"{LMDEPLOY} api_server m --dp 2 --proxy-url http://h")
    assert api_ports(seen(root, child, grandchild, *listeners)) == {3123}
    alone = process(10, f"{LMDEPLOY} api_server m")
    assert not api_ports(seen(alone, child, grandchild, *listeners))


def test_lmdeploy_without_a_server() -> None:
    """``lmdeploy chat`` and unknown services open nothing; memory of it opens nothing."""
    for command in (f"{PYTHON} /venv/bin/lmdeploy chat", f"{LMDEPLOY} gradio", LMDEPLOY):
        assert not stacks(seen(process(10, command)))
    orphan = process(10, f"{PYTHON} x.py", remembered=Stack.LMDEPLOY)
    assert roles(seen(orphan, tcp(23333, HOST, 10, backlog=2048))) == {23333: "unknown"}


def test_mooncake_master() -> None:
    """RPC, metadata and admin ports; the Python script starts the native program."""
    found = seen(
        process(10, f"{PYTHON} /venv/bin/mooncake_master --enable_http_metadata_server=true"),
        process(11, "/site/mooncake/mooncake_master --enable_http_metadata_server=true", 10),
        tcp(50051, "0.0.0.0", 11, backlog=128),
        tcp(9003, "0.0.0.0", 11, backlog=128),
        tcp(8080, "0.0.0.0", 11, backlog=128),
        unix("@x", 11),
    )
    expected = {50051: "kv-transfer", 9003: "metrics", 8080: "kv-transfer", "@x": "unix"}
    assert roles(found) == expected
    assert stacks(found) == [("mooncake", "mooncake_master", 10)]


def test_store_metrics_follow_flags() -> None:
    """A metrics flag moves the metrics; a main port that is 9090 by will is no metrics."""
    server = process(10, f"{PYTHON} /venv/bin/lmcache server --port 5555 --prometheus-port 9191")
    found = seen(
        server,
        tcp(5555, "127.0.0.1", 10, backlog=100),
        tcp(9191, "0.0.0.0", 10),
        tcp(9192, "0.0.0.0", 10, backlog=5),
    )
    assert roles(found) == {5555: "kv-transfer", 9191: "metrics", 9192: "metrics"}
    told = process(10, f"{PYTHON} -m lmcache.v1.multiprocess.server --port 9090")
    assert roles(seen(told, tcp(9090, "0.0.0.0", 10))) == {9090: "kv-transfer"}
    words = process(10, f"{PYTHON} /venv/bin/lmcache_server 0.0.0.0 9090")
    assert roles(seen(words, tcp(9090, "0.0.0.0", 10))) == {9090: "kv-transfer"}
    default = process(10, f"{PYTHON} -m lmcache.v1.multiprocess.server")
    assert roles(seen(default, tcp(9090, "0.0.0.0", 10))) == {9090: "metrics"}
    assert stacks(seen(default)) == [("lmcache", "lmcache", 10)]


def test_lmcache_tools_are_no_store() -> None:
    """``lmcache bench`` serves nobody."""
    for command in (f"{PYTHON} /venv/bin/lmcache", f"{PYTHON} /venv/bin/lmcache bench"):
        assert not stacks(seen(process(10, command)))


def test_transfer_engine_by_library_or_by_its_pair() -> None:
    """Mooncake over TCP: handshake on 0.0.0.0, data on [::], both in its range."""
    pair = (tcp(15823, "0.0.0.0", 10, backlog=128), tcp(16852, "::", 10, backlog=128))
    script = process(10, f"{PYTHON} mc.py")
    assert roles(seen(script, *pair)) == {15823: "kv-transfer", 16852: "kv-transfer"}
    assert stacks(seen(script, *pair)) == [("mooncake", "mc.py", 10)]
    assert roles(seen(script, pair[0])) == {15823: "-"}
    other = process(10, f"{PYTHON} mc.py", libraries=frozenset())
    assert roles(seen(other, *pair)) == {15823: "-", 16852: "-"}
    known = process(10, f"{PYTHON} mc.py", libraries=frozenset({"mooncake"}))
    assert roles(seen(known, tcp(40000, HOST, 10, backlog=77))) == {40000: "kv-transfer"}
    native = process(10, "/usr/bin/thing")
    assert roles(seen(native, *pair)) == {15823: "-", 16852: "-"}


def test_transfer_engine_range_can_be_moved() -> None:
    """MC_MIN_RPC_PORT and MC_MAX_RPC_PORT."""
    env = {"MC_MIN_RPC_PORT": "30000", "MC_MAX_RPC_PORT": "30010"}
    pair = (tcp(30001, "0.0.0.0", 10, backlog=128), tcp(30002, "::", 10, backlog=128))
    assert set(roles(seen(process(10, f"{PYTHON} m.py", env=env), *pair)).values()) == {
        "kv-transfer"
    }


def test_nixl_agent_by_library_or_by_ucx() -> None:
    """UCX listens on each interface, loopback too, and runs a thread ``async``."""
    pair = (tcp(40001, "127.0.0.1", 10, backlog=4096), tcp(40002, HOST, 10, backlog=4096))
    threads = {"python3": 2, "async": 1}
    script = process(10, f"{PYTHON} nx.py", threads=threads)
    assert roles(seen(script, *pair)) == {40001: "kv-transfer", 40002: "kv-transfer"}
    assert stacks(seen(script, *pair)) == [("nixl", "nx.py", 10)]
    assert roles(seen(script, pair[1])) == {40002: "-"}
    other = process(10, f"{PYTHON} nx.py", threads=threads, libraries=frozenset({"zmq"}))
    assert roles(seen(other, *pair)) == {40001: "-", 40002: "-"}
    known = process(10, f"{PYTHON} nx.py", libraries=frozenset({"nixl"}), threads=ZMQ_THREADS)
    assert roles(seen(known, tcp(8888, "0.0.0.0", 10, backlog=100))) == {8888: "kv-transfer"}
