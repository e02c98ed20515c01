"""Known servers in every spelling, and programs that a server starts beside itself.

Crafted from documented command lines and backlogs; the right answers were written beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

from tests.unit.recognize.node_builder import ZMQ_THREADS, process, renamed, roles, seen, tcp
from vllmwall.model import Process

PYTHON = "/venv/bin/python3"
ENGINE = frozenset({"vllm", "torch", "zmq", "cuda"})
POD = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "m", "MASTER_PORT": "29500"}
NIXL = '\'{"kv_connector":"NixlConnector","kv_role":"kv_both"}\''
SERVERS = {
    "/venv/bin/vllm serve m": 8000,
    "/venv/bin/vllm serve m --port=8001": 8001,
    "/venv/bin/vllm serve m --port 8001 --ssl-keyfile k --ssl-certfile c --root-path /x": 8001,
    "-m vllm.entrypoints.openai.api_server --model m --port 8001": 8001,
    "-m vllm.entrypoints.api_server --model m": 8000,
    "-um vllm.entrypoints.cli.main serve m": 8000,
    "-m vllm serve m --port 8003": 8003,
    "/opt/.vllm-wrapped serve m": 8000,
    "/opt/vllm.real serve m": 8000,
    "/venv/lib/site-packages/vllm/entrypoints/openai/api_server.py --model m --port 8002": 8002,
    "/opt/bin/llm serve m --port 8004": 8004,
    "/opt/bin/llm serve m": 8000,
    "/venv/bin/vllm-omni serve m --omni --port 8091": 8091,
    "-m vllm_omni.entrypoints.cli.main serve m --port 8091": 8091,
    "-m vllm.entrypoints.launchers.api_server.entry --model m --port 8005": 8005,
    "-m vllm_nvext.entrypoints.openai.api_server --port 8000": 8000,
}
BACK_ROOMS = {
    f"/venv/bin/vllm serve m --kv-transfer-config {NIXL} --port 8100": 8100,
    "/venv/bin/vllm serve m --kv-transfer-config.kv_connector NixlConnector": 8000,
    "/venv/bin/vllm run-batch -i x -o y --enable-metrics --port 8000": 8000,
    "/venv/bin/vllm serve m --headless --data-parallel-size 2": 8000,
}
# command, port, backlog, its libraries, and its role: where the front started it, or its shell did
CHILDREN = [
    ("/usr/bin/node server.js --port 3000", 3000, 511, "", "api", "-"),
    ("/usr/bin/node server.js", 3000, 511, "", "web", "web"),
    ("/opt/gateway --port 8080", 8080, 4096, "", "web", "web"),
    ("/opt/axum-gateway --port 8080", 8080, 1024, "", "web", "web"),
    ("/usr/sbin/nginx -g 'daemon off;'", 8080, 511, "", "web", "web"),
    ("/usr/sbin/haproxy -f x.cfg", 8080, 4096, "", "web", "web"),
    ("/usr/bin/envoy -c e.yaml", 8080, 4096, "", "web", "web"),
    ("/usr/bin/redis-server --port 6379", 6379, 511, "", "unknown", "unknown"),
    ("/usr/bin/redis-server *:6379", 6379, 511, "", "unknown", "unknown"),
    ("/usr/bin/nats-server -p 4222", 4222, 4096, "", "dynamo-request-plane|unknown", "unknown"),
    ("/usr/bin/etcd --listen-client-urls x", 2379, 4096, "", "unknown", "unknown"),
    (f"{PYTHON} -m http.server 8090", 8090, 5, "", "-", "-"),
    (f"{PYTHON} /venv/bin/tensorboard --logdir x --bind_all", 6006, 128, "", "-", "-"),
    (f"{PYTHON} /venv/bin/jupyter-lab --ip 0.0.0.0", 8888, 128, "tornado zmq", "-", "-"),
    (f"{PYTHON} /venv/bin/open-webui serve --port 8085", 8085, 2048, "httptools", "-", "-"),
    (f"{PYTHON} -m streamlit run ui.py --server.port 8501", 8501, 128, "tornado", "-", "-"),
    ("/usr/bin/node_exporter --web.listen-address=:9100", 9100, 4096, "", "-", "-"),
    ("/usr/bin/dcgm-exporter -a :9400", 9400, 4096, "", "-", "-"),
    (f"{PYTHON} /x/debugpy/adapter --port 5678", 5678, 4096, "", "unknown", "unknown"),
    (f"{PYTHON} /venv/bin/rpyc_classic.py -p 18812", 18812, 4096, "", "unknown", "unknown"),
    (f"{PYTHON} -m uvicorn gateway:app --port 8080", 8080, 2048, "httptools", "api", "-"),
]  # fmt: skip


def seen_again(*parts: object) -> Iterator[dict[int | str, str]]:
    """The roles with what a birth shows, without its backlogs, and without its command line too."""
    for late, cap in product(("", "backlogs", "titles"), (4096, 1024, 128)):
        yield roles(seen(*(_as_seen(one, late, cap) for one in parts)))


def _as_seen(one: object, late: str, cap: int) -> object:
    if isinstance(one, Process):
        return replace(one, exec_argv=None) if late == "titles" else one
    return replace(one, backlog=None if late else one.backlog, queue_limit=min(one.backlog, cap))  # type: ignore[type-var, attr-defined]


def engine(parent: int) -> Process:
    return renamed(200, "VLLM::EngineCore", parent, libraries=ENGINE, threads=ZMQ_THREADS)


@pytest.mark.parametrize("env", [{}, POD, {"PORT": "9999"}], ids=["plain", "pod", "PORT"])
@pytest.mark.parametrize(("command", "port"), SERVERS.items())
def test_a_server_in_any_spelling(command: str, port: int, env: dict[str, str]) -> None:
    """Also in a pod of a training operator, and where the platform sets PORT."""
    libraries = ENGINE | {"httptools"}
    server = process(100, f"{PYTHON} {command}", libraries=libraries, threads=ZMQ_THREADS, env=env)
    opened = tcp(port, "0.0.0.0", 100, backlog=2048), tcp(41000, "10.0.0.1", 200, backlog=100)
    for found in seen_again(server, engine(100), *opened):
        assert found == {port: "api", 41000: "zmq"}


@pytest.mark.parametrize(("command", "port"), BACK_ROOMS.items())
def test_what_is_made_for_a_partner_is_no_api(command: str, port: int) -> None:
    """A decode partner's server, metrics of a batch, a node without a frontend."""
    server = process(100, f"{PYTHON} {command}", libraries=ENGINE, threads=ZMQ_THREADS)
    for found in seen_again(server, engine(100), tcp(port, "0.0.0.0", 100, backlog=2048)):
        assert found[port] not in ("api", "-")


@pytest.mark.parametrize("shell", [False, True], ids=["by the front", "by a shell of the job"])
@pytest.mark.parametrize("child", CHILDREN, ids=[each[0] for each in CHILDREN])
def test_what_a_front_starts_beside_itself(
    child: tuple[str, int, int, str, str, str], shell: bool
) -> None:
    """A gateway, a database, a notebook: the API of the front stays the API."""
    command, port, backlog, maps, of_front, of_shell = child
    front = process(
        100,
        f"{PYTHON} launcher.py --port 8000",
        libraries=ENGINE | {"httptools"},
        threads=ZMQ_THREADS,
    )
    between = [process(110, "/bin/sh -c run", 100, libraries=frozenset())] if shell else []
    beside = process(
        120, command, 110 if shell else 100, libraries=frozenset(maps.split()), threads={"x": 1}
    )
    for found in seen_again(
        front,
        *between,
        beside,
        engine(100),
        tcp(8000, "0.0.0.0", 100, backlog=2048),
        tcp(port, "0.0.0.0", 120, backlog=backlog),
    ):
        assert found[8000] == "api"
        assert found[port] in (of_shell if shell else of_front).split("|")
