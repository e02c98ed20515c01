"""Users who lie, and bystanders: nobody can open or close another one's port."""

from __future__ import annotations

import time
from dataclasses import replace

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
)
from vllmwall.model import Process, Proto

VLLM = "/venv/bin/python3 /venv/bin/vllm serve m"
HOST = "10.0.0.7"


def bystanders() -> tuple[Process, ...]:
    """A session: sshd, a shell, and what else runs there."""
    return (
        process(1, "/sbin/init", 0),
        process(5, "/usr/sbin/sshd -D", 1),
        process(6, "-bash", 5, uid=1000),
        process(8, "/usr/bin/python3 -m http.server 9000", 6, uid=1000),
        process(10, VLLM, 6, uid=1000),
    )


def test_claim_takes_descendants_only() -> None:
    """The shell, the session, init and the shell's other children stay out."""
    found = seen(
        *bystanders(),
        tcp(22, "0.0.0.0", 5),
        tcp(9000, "0.0.0.0", 8, backlog=5),
        tcp(8000, "0.0.0.0", 10, backlog=2048),
    )
    assert found.workloads[0].pids == {10}
    assert roles(found) == {22: "-", 9000: "-", 8000: "api"}


@pytest.mark.parametrize(
    "parent",
    [
        {"command": "/bin/bash run.sh", "uid": 1000},
        {"command": "/usr/bin/python3 /usr/bin/supervisord", "uid": 0},
        {"command": "/usr/bin/python3 /usr/bin/supervisord", "uid": 1000,
         "threads": {"python3": 1}},
        {"command": "/usr/bin/python3 /usr/bin/supervisord", "uid": 1000},
        {"command": "/usr/bin/python3 app.py", "uid": 1000, "libraries": frozenset({"zmq"})},
    ],
)  # fmt: skip
def test_fake_child_pulls_nobody_in(parent: dict[str, object]) -> None:
    """A program that calls itself VLLM::EngineCore closes its own port, not its parent's."""
    command = str(parent.pop("command"))
    fake = process(11, "/home/u/evil", 7, uid=1000, argv=("VLLM::EngineCore",))
    found = seen(
        process(7, command, 1, **parent),
        fake,
        tcp(443, "0.0.0.0", 7, backlog=511),
        tcp(8000, "0.0.0.0", 11, backlog=2048),
    )
    assert roles(found) == {443: "-", 8000: "unknown"}
    assert stacks(found) == [("vllm", "vllm", 11)]


def test_titles_open_nothing() -> None:
    """Every title of every stack, on the default port with uvicorn's backlog: internal."""
    for title in (
        "VLLM::APIServer_0",
        "VLLM::APIServer_DP0",
        "ray::ProxyActor",
        "sglang::router",
        "sglang::http_server",
        "vllm",
    ):
        for port in (8000, 30000):
            fake = renamed(10, title, 1, exec_argv=None)
            assert not api_ports(seen(fake, tcp(port, "0.0.0.0", 10, backlog=2048))), title


def test_fake_api_server_below_a_foreign_parent_opens_nothing() -> None:
    """Only a child of the server itself is an API server of it."""
    worker = renamed(12, "VLLM::Worker", 10)
    fake = renamed(13, "VLLM::APIServer_7", 12)
    found = seen(process(10, VLLM), worker, fake, tcp(9000, HOST, 13, backlog=2048))
    assert not api_ports(found)


@pytest.mark.parametrize(
    "fields",
    [
        {"backlog": -1, "address": "::"},
        {"backlog": 100, "address": HOST},
        {"backlog": 4096, "address": "::"},
        {"backlog": 5, "address": "0.0.0.0"},
        {"backlog": None, "address": "::"},
        {"backlog": None, "queue_limit": 100, "address": HOST},
        {"backlog": None, "queue_limit": 4096, "address": HOST},
    ],
)
@pytest.mark.parametrize("owner", [10, 12])
def test_other_kinds_of_sockets_on_the_flags_port(owner: int, fields: dict[str, object]) -> None:
    """A TCPStore, ZMQ or Ray socket on the port that --port names is no API."""
    address = str(fields["address"])
    rest = {key: value for key, value in fields.items() if key != "address"}
    server = process(10, f"{VLLM} --port 29500", threads={"pt_tcpstore_uv": 1, **ZMQ_THREADS})
    found = seen(server, renamed(12, "VLLM::Worker", 10), tcp(29500, address, owner, **rest))
    assert not api_ports(found)


def test_engines_and_workers_never_own_the_api() -> None:
    """Not even with the right port and the right backlog."""
    for title in ("VLLM::EngineCore", "VLLM::Worker_TP0", "VLLM::DPCoordinator"):
        found = seen(process(10, VLLM), renamed(12, title, 10), tcp(8000, HOST, 12, backlog=2048))
        assert not api_ports(found), title


def test_leaked_socket_of_an_ancestor_stays_the_ancestors() -> None:
    """A service that leaks its listening socket into a job keeps its port."""
    service = process(7, "/usr/sbin/jobd", 1)
    found = seen(service, process(10, VLLM, 7), tcp(6817, "0.0.0.0", 10, 7, backlog=128))
    assert roles(found) == {6817: "-"}
    ((owner, listener, by),) = found.inherited
    assert (10, 6817, "jobd (7)") == (owner.root_pid, listener.port, by)


def test_what_init_holds_is_the_service_s() -> None:
    """systemd makes the socket of a .socket unit, keeps it, and accepts nothing."""
    init = process(1, "/usr/lib/systemd/systemd", 0)
    found = seen(init, process(10, VLLM, uid=1000), tcp(40000, HOST, 1, 10, backlog=100))
    assert roles(found) == {40000: "zmq"}
    assert found.inherited == ()


def test_socket_handed_over_by_another_user_stays_theirs() -> None:
    """Holding a descriptor of another user's socket does not take it into the workload."""
    other = process(7, "/usr/sbin/broker", 1, uid=33)
    found = seen(other, process(10, VLLM, uid=1000), tcp(443, "0.0.0.0", 7, 10, backlog=511))
    assert roles(found) == {443: "-"}


def test_helper_that_escaped_does_not_open_its_workloads_socket() -> None:
    """A forked helper under init that still holds the socket: same user, not an ancestor."""
    stray = process(30, "/venv/bin/python3 helper.py", 1)
    server = process(10, VLLM)
    found = seen(server, stray, tcp(40000, HOST, 10, 30, backlog=100))
    assert roles(found) == {40000: "zmq"}


def test_socket_of_two_workloads_goes_to_the_older() -> None:
    """Handed from one job to another, it stays with the one that was there first."""
    found = seen(
        process(10, VLLM),
        process(20, "/v/python3 -m vllm.entrypoints.api_server"),
        tcp(8000, HOST, 20, 10, backlog=2048),
    )
    assert [len(one.listeners) for one in found.workloads] == [1, 0]


def test_reused_pid_of_a_dead_parent_adopts_nobody() -> None:
    """A child outlives its parent; a younger server gets that pid."""
    server = process(10, VLLM, start_time=500)
    stranger = process(11, "/usr/sbin/nginx", 1, birth_ppid=10, start_time=400)
    found = seen(server, stranger, tcp(443, "0.0.0.0", 11, backlog=511))
    assert roles(found) == {443: "-"}


def test_siblings_of_a_dead_parent_are_not_joined() -> None:
    """A script started a server and a web site, and died: only the server is a workload."""
    found = seen(
        process(10, VLLM, 1, birth_ppid=7),
        process(11, "/usr/sbin/nginx", 1, birth_ppid=7),
        process(12, VLLM, 1, birth_ppid=7),
        tcp(443, "0.0.0.0", 11, backlog=511),
    )
    assert [one.id.root_pid for one in found.workloads] == [10, 12]
    assert roles(found) == {443: "-"}


def test_circles_among_parents_end() -> None:
    """Observation races with dying processes; a circle of parents is no endless loop."""
    found = seen(process(10, VLLM, 11), renamed(11, "VLLM::Worker", 10), process(12, "x", 12))
    assert found.unclaimed == ()


def test_leftover_environment_claims_no_shell() -> None:
    """VLLM_WORKER_MULTIPROC_METHOD in somebody's profile makes no workload of his session."""
    env = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    shell = process(7, "/bin/bash", 1, env=env)
    site = process(8, "/usr/bin/python3 -m http.server", 7, env=env)
    assert roles(seen(shell, site, tcp(8000, "0.0.0.0", 8, backlog=5))) == {8000: "-"}


def test_threads_named_like_torchs_close_their_own_port_only() -> None:
    """Thread names can be set by anybody."""
    shell = process(7, "/bin/bash", 1)
    liar = process(8, "/home/u/evil", 7, threads={"pt_tcpstore_uv": 1})
    found = seen(
        shell,
        liar,
        process(9, "/usr/sbin/nginx", 7),
        tcp(80, "0.0.0.0", 9),
        tcp(8000, "0.0.0.0", 8, backlog=2048),
    )
    assert roles(found) == {80: "-", 8000: "web"}


def test_listener_of_an_unseen_owner_is_nobodys() -> None:
    """Its owner was not looked at, or cannot be seen: no guess on a shared host."""
    found = seen(
        process(1, "/sbin/init", 0),
        process(10, VLLM),
        tcp(8000, "0.0.0.0", 99),
        tcp(2049, "0.0.0.0"),
    )
    assert roles(found) == {8000: "-", 2049: "-"}


def test_container_with_one_workload_owns_what_nobody_is_seen_to_own() -> None:
    """Nothing else lives in that namespace; but without an owner nothing is an API."""
    found = seen(process(10, VLLM), tcp(8000, "0.0.0.0", backlog=2048), tcp(1, HOST, backlog=-1))
    assert roles(found) == {8000: "unknown", 1: "gloo"}


def test_unknown_namespaces_are_not_containers() -> None:
    """Namespace 0 means that it is not known."""
    found = seen(process(10, VLLM, namespace=0), tcp(8000, "0.0.0.0", namespace=0))
    assert roles(found) == {8000: "-"}


def test_spawned_child_under_another_users_python() -> None:
    """A multiprocessing child of another user is not what that user's Python started."""
    server = process(7, "/usr/bin/python3 hub.py", 1, uid=0)
    child = renamed(11, "VLLM::EngineCore", 7, uid=1000, exec_argv=SPAWN)
    assert roles(seen(server, child, tcp(443, "0.0.0.0", 7))) == {443: "-"}


def test_udp_of_a_workload_is_internal() -> None:
    """No UDP socket was ever seen to be an API."""
    listener = replace(tcp(8000, "0.0.0.0", 10), proto=Proto.UDP)
    for command in (VLLM, "/v/python3 -m sglang.launch_server", "/v/python3 lmdeploy serve proxy"):
        assert not api_ports(seen(process(10, command), listener))


@pytest.mark.parametrize("text", ["9" * 5000, "²", "-", "[" * 10000])
def test_no_command_line_or_environment_breaks_recognition(text: str) -> None:
    """One user's odd words must not blind the daemon for all others."""
    env = {
        "VLLM_NIXL_SIDE_CHANNEL_PORT": text, "VLLM_MOONCAKE_BOOTSTRAP_PORT": text,
        "MC_MIN_RPC_PORT": text, "MC_MAX_RPC_PORT": text, "MASTER_PORT": text,
    }  # fmt: skip
    words = ("--port", text, "--kv-events-config", text, "--data-parallel-size", text)
    commands = (
        "/v/python3 -m vllm.entrypoints.api_server",
        "/v/python3 -m sglang.launch_server",
        "/v/python3 /v/lmdeploy serve proxy",
        "/v/python3 /v/ray start",
        "/x/raylet",
        "/v/python3 /v/torchrun",
        "/v/mooncake_master",
        "/v/python3 x.py",
    )
    for command in commands:
        root = process(10, command, env=env)
        argv = (*root.argv, *words)
        root = process(10, command, env=env, argv=argv, exec_argv=argv)
        engine = renamed(11, "VLLM::EngineCore", 10, env=env)
        listeners = [
            tcp(9000, "0.0.0.0", pid, backlog=log)
            for pid in (10, 11)
            for log in (-1, 100, 128, 2048, None)
        ]
        assert not api_ports(seen(root, engine, *listeners)) & {5}


def test_a_huge_tree_does_not_stop_the_daemon() -> None:
    """A user may build a very deep tree and open very many sockets: time grows in proportion."""
    deep = [process(10, VLLM)]
    deep += [process(pid, "/usr/bin/x", pid - 1) for pid in range(11, 1500)]
    leaves = [renamed(pid, "VLLM::Worker", 1499) for pid in range(3000, 4500)]
    sockets = [tcp(1 + n % 60000, "10.0.0.7", 3000, queue_limit=4096) for n in range(2000)]
    sockets += [tcp(7, "::", pid, backlog=-1) for pid in range(3000, 4500)]
    start = time.thread_time()
    found = seen(*deep, *leaves, *sockets)
    assert len(found.workloads) == 1
    assert time.thread_time() - start < 5


def test_only_a_few_fork_servers_are_climbed() -> None:
    """Real ones are one level deep; a user may stack as many as he likes."""
    server = ("/v/python3", "-c", "from multiprocessing.forkserver import main")
    chain = [process(pid, "", pid - 1, argv=server, exec_argv=server) for pid in range(11, 20)]
    found = seen(process(10, "/v/python3 a.py"), *chain, renamed(20, "VLLM::EngineCore", 19))
    assert [one.id.root_pid for one in found.workloads] == [17]
