"""Servers that look like an API and are made for a partner, a trainer or a stack beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.recognize.node_builder import ZMQ_THREADS, process, renamed, tcp
from tests.unit.recognize.test_families import (
    EXE,
    NO_TRANSPORT,
    PY,
    VLLM,
    answers,
    audience,
    engine,
    gloo,
)

BACK_ROOMS = [
    ('{"kv_connector":"NixlConnector","kv_role":"kv_both"}', "backend"),
    ('{"kv_connector":"P2pNcclConnector","kv_role":"kv_producer","kv_port":21001}', "backend"),
    ('{"kv_connector":"Anything","kv_role":"kv_consumer"}', "backend"),
    ('{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"}', "api"),
    ('{"kv_connector":"OffloadingConnector","kv_role":"kv_both"}', "api"),
]


@pytest.mark.parametrize(("config", "role"), BACK_ROOMS)
def test_a_partner_of_prefill_or_decode_is_a_back_room(config: str, role: str) -> None:
    """Its API is for the proxy; a cache beside a server changes nothing."""
    words = (PY, "/opt/venv/bin/vllm", "serve", "m", "--kv-transfer-config", config)
    server = process(10, "", argv=words, exec_argv=words, exe=EXE, libraries=VLLM)
    assert answers(server, tcp(8000, "0.0.0.0", 10, backlog=2048)) == {8000: role}


@pytest.mark.parametrize(("urls", "role"), [("http://10.0.0.7:8100", "backend"),
                                            ("http://10.0.0.9:8200", "api")])  # fmt: skip
def test_external_load_balancing_behind_a_router_of_this_host(urls: str, role: str) -> None:
    """A rank behind a router that is known here is the router's; without one it is the API."""
    rank = f"{PY} /opt/venv/bin/vllm serve m --port 8100 --data-parallel-rank 0"
    router = f"{PY} /opt/venv/bin/vllm-router --port 8000 --worker-urls {urls}"
    found = answers(
        process(10, rank, exe=EXE, libraries=VLLM),
        process(20, router, exe=EXE, libraries=NO_TRANSPORT),
        tcp(8100, "0.0.0.0", 10, backlog=2048),
        tcp(8000, "0.0.0.0", 20, backlog=2048),
    )
    assert found == {8100: role, 8000: "api"}


def test_a_router_of_another_user_closes_nobody_s_api() -> None:
    """Anybody can write the address of another user's API on a command line."""
    rank = f"{PY} /opt/venv/bin/vllm serve m --port 8100 --data-parallel-rank 0"
    router = f"{PY} /opt/venv/bin/vllm-router --port 8000 --worker-urls http://10.0.0.7:8100"
    found = answers(
        process(10, rank, exe=EXE, libraries=VLLM, uid=1000),
        process(20, router, exe=EXE, libraries=NO_TRANSPORT, uid=1001),
        tcp(8100, "0.0.0.0", 10, backlog=2048),
        tcp(8000, "0.0.0.0", 20, backlog=2048),
    )
    assert found == {8100: "api", 8000: "api"}


def test_inner_server_of_bentoml_is_a_back_room() -> None:
    """The outer port is the API, on any number; the inner `vllm serve` is the worker's."""
    bento = f"{PY} /opt/venv/bin/bentoml serve service:S --port 4444"
    worker = f"{PY} -m _bentoml_impl.worker.service service:S --fd 3 --worker-id 1"
    circus = replace(process(10, bento, exe=EXE, libraries=frozenset({"zmq"}),
                             threads=ZMQ_THREADS), argv=("circusd",), comm="circusd")  # fmt: skip
    found = answers(
        circus,
        process(11, worker, 10, exe=EXE, libraries=NO_TRANSPORT, threads={"x": 1}),
        process(12, f"{PY} /opt/venv/bin/vllm serve m --port 8000", 11, exe=EXE, libraries=VLLM),
        tcp(4444, "0.0.0.0", 10, 11, backlog=2048),
        tcp(8000, "0.0.0.0", 12, backlog=2048),
    )
    assert found == {4444: "api", 8000: "backend"}


TRAINER_SERVERS = [
    f"{PY} /opt/venv/bin/trl vllm-serve --port 9000",
    f"{PY} -m trl vllm-serve --port 9000",
    f"{PY} -m trl.scripts.vllm_serve --port 9000",
    f"{PY} /src/trl/scripts/vllm_serve.py --port 9000",
    f"{PY} /opt/venv/bin/swift rollout --model m --port 9000",
    f"{PY} /opt/venv/lib/python3.11/site-packages/swift/cli/rollout.py --port 9000",
    f"{PY} /opt/venv/bin/axolotl vllm-serve c.yml --port 9000",
    f"{PY} /opt/venv/bin/vf-vllm --model m --port 9000",
    f"{PY} -m fastchat.serve.vllm_worker --port 9000",
]


@pytest.mark.parametrize("command", TRAINER_SERVERS)
def test_servers_of_trainers_and_controllers_are_back_rooms(command: str) -> None:
    """Uvicorn, and a port that the operator named: but who reaches it loads weights."""
    front = process(10, command, exe=EXE, libraries=VLLM)
    found = answers(front, engine(11, 10), gloo(11), tcp(9000, "0.0.0.0", 10, backlog=2048))
    assert found == {9000: "backend", 40111: "gloo"}


def test_an_actor_of_ray_has_no_api_by_a_default_port() -> None:
    """Ray wrote its command line: the operator asked for nothing."""
    worker = f"{PY} /ray/_private/workers/default_worker.py --node-manager-port=1"
    actor = process(11, worker, 1, exe=EXE, libraries=VLLM | {"ray"}, threads={"worker.io": 2})
    ports = tcp(8000, "0.0.0.0", 11, backlog=2048), gloo(11)
    renamed_actor = replace(actor, argv=("ray::Server",), comm="ray::Server")
    for one in (actor, renamed_actor):
        assert audience(answers(one, *ports)) == {8000: "peers", 40111: "peers"}


def test_a_router_with_three_ports_that_lost_its_command_line() -> None:
    """Metrics, API, health checks: nothing tells the last two apart, so neither is public."""
    router = renamed(
        10, "smg::router", 1, exec_argv=None, libraries=NO_TRANSPORT, threads={"tokio-rt-worker": 2}
    )
    opened = [tcp(port, "0.0.0.0", 10, queue_limit=4096) for port in (29000, 30001, 30009)]
    assert answers(router, *opened) == {29000: "metrics", 30001: "unknown", 30009: "unknown"}
    assert answers(router, *opened[:2]) == {29000: "metrics", 30001: "api"}


ETCD = "/usr/bin/etcd --listen-client-urls http://0.0.0.0:2379"
FRONTEND = f"{PY} -m dynamo.frontend"


@pytest.mark.parametrize(
    ("command", "beside", "expected"),
    [
        (ETCD, FRONTEND, "rendezvous"),
        ("/usr/bin/nats-server -js -m 8222", FRONTEND, "dynamo-request-plane"),
        (ETCD, f"{PY} -m http.server", "-"),
        (ETCD, f"{PY} /opt/venv/bin/vllm serve m", "-"),
        (f"{ETCD} --client-cert-auth=true --trusted-ca-file=/x", FRONTEND, "-"),
        ("/usr/bin/etcd --config-file /var/lib/etcd.yml", FRONTEND, "-"),
        ("/usr/bin/nats-server -c n.conf", f"{PY} -m http.server", "-"),
    ],
)
@pytest.mark.parametrize("etcd_first", [False, True])
def test_general_software_belongs_to_the_stack_beside_it(
    command: str, beside: str, expected: str, etcd_first: bool
) -> None:
    """Dynamo's etcd and NATS are for peers; others' are left alone, and so is Kubernetes' own."""
    pid, other = (10, 20) if etcd_first else (20, 10)
    found = answers(
        process(pid, command, 1, libraries=NO_TRANSPORT, threads={"x": 3}),
        process(other, beside, 1, exe=EXE, libraries=NO_TRANSPORT, threads={"x": 1}),
        tcp(2379, "::", pid, backlog=4096),
    )
    assert found == {2379: expected}


def test_etcd_that_checks_its_clients_by_its_environment() -> None:
    """Kubespray's unit names no flags."""
    env = {"ETCD_CLIENT_CERT_AUTH": "true"}
    found = answers(
        process(10, "/usr/local/bin/etcd", 1, libraries=NO_TRANSPORT, env=env),
        process(20, FRONTEND, 1, exe=EXE, libraries=NO_TRANSPORT),
        tcp(2379, "::", 10, backlog=4096),
    )
    assert found == {2379: "-"}


def test_a_dynamo_of_another_user_closes_nobody_s_etcd() -> None:
    """Anybody can start a program that looks like Dynamo's."""
    found = answers(
        process(10, ETCD, 1, libraries=NO_TRANSPORT, uid=0),
        process(20, FRONTEND, 1, exe=EXE, libraries=NO_TRANSPORT, uid=1001),
        tcp(2379, "::", 10, backlog=4096),
    )
    assert found == {2379: "-"}


def test_etcd_in_another_namespace_is_not_beside() -> None:
    """A container's Dynamo does not claim the etcd of the host."""
    found = answers(
        process(10, ETCD, 1, libraries=NO_TRANSPORT, namespace=1),
        process(20, FRONTEND, 1, exe=EXE, libraries=NO_TRANSPORT, namespace=2),
        tcp(2379, "::", 10, backlog=4096, namespace=1),
    )
    assert found == {2379: "-"}
