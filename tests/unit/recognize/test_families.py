"""Families of launchers, web servers, transports and companions, by members that no rule names.

Each member is small and invented after its documentation; real recordings are in
`test_open_world`. Every answer is also asked for without events (late), and must be the same.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.recognize.node_builder import (
    GLOO_THREADS,
    SPAWN,
    STORE_THREADS,
    ZMQ_THREADS,
    node,
    process,
    renamed,
    roles,
    tcp,
)
from vllmwall.model import Listener, Process
from vllmwall.recognize import recognize

HOST = "10.0.0.7"
PY = "/opt/venv/bin/python3"
EXE = "/usr/bin/python3.11"
NO_TRANSPORT: frozenset[str] = frozenset()
VLLM = frozenset({"vllm", "torch", "zmq"})
RANK = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "job-master-0", "MASTER_PORT": "23456"}


def answers(*parts: Process | Listener) -> dict[int | str, str]:
    """Roles by port; the same without backlogs and without what a birth shows."""
    early = node(*parts)
    found = roles(recognize(early))
    late = replace(
        early,
        processes={
            pid: replace(one, exec_argv=None, birth_ppid=None)
            for pid, one in early.processes.items()
        },
        listeners=tuple(
            one
            if one.backlog is None
            else replace(
                one, backlog=None, queue_limit=4096 if one.backlog < 0 else min(one.backlog, 4096)
            )
            for one in early.listeners
        ),
    )
    assert audience(roles(recognize(late))) == audience(found)
    return found


def audience(found: dict[int | str, str]) -> dict[int | str, str]:
    return {port: {"api": "public", "-": "none"}.get(role, "peers") for port, role in found.items()}


def engine(pid: int, ppid: int) -> Process:
    return renamed(pid, "VLLM::EngineCore", ppid, libraries=VLLM, threads=ZMQ_THREADS)


def gloo(pid: int) -> Listener:
    """Somebody else asked for the longest queue, so that somaxconn is known."""
    return tcp(40111, HOST, pid, backlog=-1)


ENTRY_POINTS = [
    f"{PY} -um vllm.entrypoints.openai.api_server --model m --port 8000",
    f"{PY} -Im vllm.entrypoints.openai.api_server --model m",
    f"{PY} -Xdev -W ignore -um vllm.entrypoints.openai.api_server --model m --port=8000",
    f"{PY} -X faulthandler -m vllm.entrypoints.openai.api_server --port 8000",
    f"{PY} -m debugpy --listen 0.0.0.0:5678 --wait-for-client /opt/venv/bin/vllm serve m",
    f"{PY} -m debugpy --listen 5678 -m vllm.entrypoints.openai.api_server --port 8000",
    f"{PY} -m cProfile -o out.prof /opt/venv/bin/vllm serve m --port 8000",
    f"{PY} /opt/venv/bin/coverage run --source x -m vllm.entrypoints.openai.api_server",
    f"{PY} -m memray run -o out.bin /opt/venv/bin/vllm serve m",
    f"{PY} /nix/store/x/bin/.vllm-wrapped_ serve m --port 8000",
    f"{PY} /usr/lib/vllm/vllm.real serve m",
    f"/lib64/ld-linux-x86-64.so.2 {PY} /opt/venv/bin/vllm serve m --port 8000",
    f"{PY} -m vllm.entrypoints.launchers.api_server.entry --model m",
    f"{PY} -m ipex_llm.vllm.xpu.entrypoints.openai.api_server --port 8000",
    f"{PY} -m vllm_acme.entrypoints.openai.api_server --model m",
    f"{PY} -m vllm serve m",
    f"{PY} /opt/venv/bin/vllm-omni serve m --port 8000",
    f"{PY} /opt/venv/lib/python3.11/site-packages/vllm/entrypoints/openai/api_server.py",
    f"{PY} -m vllm_tgis_adapter --model m",
    f"{PY} -m huggingfaceserver --model_id m --http_port 8000",
    f"{PY} /opt/venv/bin/aphrodite run m --port 8000",
    f"{PY} /opt/venv/bin/swift deploy --model m --port 8000",
]


@pytest.mark.parametrize("command", ENTRY_POINTS)
def test_entry_points_of_engines(command: str) -> None:
    """vLLM under other names, behind debuggers, wrappers and odd ways to start Python."""
    fields = {"exe": EXE, "libraries": VLLM, "threads": ZMQ_THREADS}
    found = answers(
        process(10, command, **fields),
        engine(11, 10),
        gloo(11),
        tcp(8000, "0.0.0.0", 10, backlog=2048),
        tcp(41000, HOST, 10, backlog=100),
    )
    assert found == {8000: "api", 41000: "zmq", 40111: "gloo"}


def test_a_name_given_by_exec_is_not_believed() -> None:
    """``exec -a NAME python -m …``: the executed file says that it is Python."""
    words = ("llm", "-m", "vllm.entrypoints.openai.api_server", "--port", "8000")
    server = process(10, "", argv=words, exec_argv=words, exe=EXE, comm="python3", libraries=VLLM)
    found = answers(server, engine(11, 10), gloo(11), tcp(8000, "0.0.0.0", 10, backlog=2048))
    assert found == {8000: "api", 40111: "gloo"}


@pytest.mark.parametrize(
    "launcher",
    [
        "/usr/bin/tini -- vllm serve m",
        "/usr/bin/dumb-init vllm serve m",
        "/bin/su app -c 'vllm serve m'",
        f"{PY} /opt/conda/bin/conda run -n env vllm serve m",
        "/root/.local/bin/uv run vllm serve m",
        "/usr/bin/timeout 1h vllm serve m",
        f"{PY} /usr/bin/supervisord -n",
        "/bin/bash -c 'vllm serve m & nginx'",
    ],
)
def test_launchers_are_no_workload(launcher: str) -> None:
    """What starts a server keeps its own ports and its other children."""
    known = {"libraries": NO_TRANSPORT, "threads": {"x": 1}}
    found = answers(
        process(8, launcher, **known),
        process(10, f"{PY} /opt/venv/bin/vllm serve m", 8, exe=EXE, libraries=VLLM),
        process(12, f"{PY} site.py", 8, exe=EXE, **known),
        tcp(9001, "0.0.0.0", 8, backlog=128),
        tcp(9002, "0.0.0.0", 12, backlog=2048),
        tcp(8000, "0.0.0.0", 10, backlog=2048),
    )
    assert found == {9001: "-", 9002: "-", 8000: "api"}


# command, port, backlog, what is mapped besides
FRONTS = [
    (f"{PY} /opt/venv/bin/uvicorn app:app --host 0.0.0.0 --port 9000", 9000, 2048, ""),
    (f"{PY} -m uvicorn app:app --port=9000", 9000, 2048, ""),
    (f"{PY} -m uvicorn app:app", 8000, 2048, ""),
    (f"{PY} /opt/venv/bin/hypercorn app:app -b 0.0.0.0:9000", 9000, 100, ""),
    (f"{PY} /opt/venv/bin/hypercorn app:app --bind [::]:9000", 9000, 100, ""),
    (f"{PY} /opt/venv/bin/granian --interface asgi --port 9000 app:app", 9000, 1024, ""),
    (f"{PY} /opt/venv/bin/waitress-serve --listen=*:9000 app:app", 9000, 1024, ""),
    (f"{PY} /opt/venv/bin/waitress-serve --port=9000 app:app", 9000, 1024, ""),
    (f"{PY} /opt/venv/bin/daphne -b 0.0.0.0 -p 9000 app:app", 9000, 50, ""),
    (f"{PY} -m aiohttp.web -H 0.0.0.0 -P 9000 app:make", 9000, 128, ""),
    (f"{PY} /opt/venv/bin/flask --app app run --host 0.0.0.0 --port 9000", 9000, 128, ""),
    (f"{PY} -m flask run -h 0.0.0.0", 5000, 128, ""),
    (f"{PY} /opt/venv/bin/fastapi run app.py --port 9000", 9000, 2048, ""),
    (f"{PY} manage.py runserver 0.0.0.0:9000", 9000, 10, ""),
    (f"{PY} /opt/venv/bin/sanic app:app --host 0.0.0.0 --port 9000", 9000, 100, ""),
    (f"{PY} /opt/venv/bin/robyn app.py --port 9000", 9000, 1024, ""),
    (f"{PY} -m robyn app.py --port 9000", 9000, 1024, ""),
    (f"{PY} /opt/venv/bin/litestar run --port 9000", 9000, 2048, ""),
    (f"{PY} app.py --port 9000", 9000, 2048, ""),
    (f"{PY} app.py --server-port 9000", 9000, 2048, ""),
    (f"{PY} app.py --http_port=9000", 9000, 2048, ""),
    (f"{PY} app.py --bind 0.0.0.0:9000", 9000, 2048, ""),
    (f"{PY} app.py --listen 0.0.0.0:9000", 9000, 128, "httptools"),
    (f"{PY} app.py --port 9000", 9000, 128, "tornado"),
    (f"{PY} app.py -p 9000", 9000, 1024, "granian"),
    (f"{PY} app.py", 8888, 128, "tornado"),
    (f"{PY} -c 'import app; app.main()' --port 9000", 9000, 2048, ""),
    (f"{PY} app.py --listen 0.0.0.0:7000", 7000, 2048, ""),  # LMCache's default is no evidence
    (f"{PY} chat.py", 7860, 2048, ""),  # Gradio
    (f"{PY} chat.py --server.port 9000", 9000, 2048, ""),
    (f"{PY} /opt/venv/bin/streamlit run ui.py --server.port=9000", 9000, 128, ""),
    (f"{PY} /opt/venv/bin/streamlit run ui.py", 8501, 128, ""),
    (f"{PY} /opt/venv/bin/mlserver start .", 8080, 2048, ""),
    (f"{PY} -m cog.server.http --threads 1", 5000, 2048, ""),
]


@pytest.mark.parametrize(("command", "port", "backlog", "mapped"), FRONTS)
def test_web_fronts_around_an_engine(command: str, port: int, backlog: int, mapped: str) -> None:
    """The API is the port that the operator named, whatever web server carries it."""
    libraries = VLLM | ({mapped} if mapped else set())
    found = answers(
        process(10, command, exe=EXE, libraries=libraries, threads={"python3": 4, **ZMQ_THREADS}),
        engine(11, 10),
        gloo(11),
        tcp(port, "0.0.0.0", 10, backlog=backlog),
    )
    assert found == {port: "api", 40111: "gloo"}


@pytest.mark.parametrize(
    ("env", "port"),
    [
        ({"PORT": "9000"}, 9000),
        ({"UVICORN_PORT": "9000"}, 9000),
        ({"API_PORT": "9000"}, 9000),
        ({"SERVER_PORT": "9000"}, 9000),
        ({"GRADIO_SERVER_PORT": "9000"}, 9000),
    ],
)
def test_the_environment_names_the_port(env: dict[str, str], port: int) -> None:
    """A framework's or a platform's variable is the operator's word too."""
    script = process(10, f"{PY} -m uvicorn app:app", exe=EXE, libraries=VLLM, env=env)
    found = answers(script, engine(11, 10), gloo(11), tcp(port, "0.0.0.0", 10, backlog=2048))
    assert found == {port: "api", 40111: "gloo"}


@pytest.mark.parametrize(
    ("command", "title"),
    [
        (f"{PY} /opt/venv/bin/gunicorn app:app -w 2 -b 0.0.0.0:9000", ""),
        (f"{PY} /opt/venv/bin/gunicorn app:app -w 2 -b 0.0.0.0:9000", "gunicorn: master [app:app]"),
        (f"{PY} -m gunicorn app:app --bind=0.0.0.0:9000", ""),
        (f"{PY} /opt/venv/bin/uvicorn app:app --workers 2 --port 9000", ""),
        (f"{PY} /opt/venv/bin/hypercorn app:app --workers 2 --bind 0.0.0.0:9000", ""),
        (f"{PY} /opt/venv/bin/granian --workers 2 --port 9000 app:app", ""),
    ],
)
def test_masters_belong_to_their_workers(command: str, title: str) -> None:
    """The master holds the socket, and the worker runs the engine."""
    known = {"exe": EXE, "threads": {"python3": 1}}
    master = process(10, command, libraries=NO_TRANSPORT, **known)
    worker = process(11, command, 10, libraries=VLLM, **known)
    if title:
        master = replace(master, argv=(title,), comm=title[:15])
        worker = replace(worker, argv=(title.replace("master", "worker"),), comm=title[:15])
    found = answers(
        master, worker, engine(12, 11), gloo(12), tcp(9000, "0.0.0.0", 10, 11, backlog=2048)
    )
    assert found == {9000: "api", 40111: "gloo"}


@pytest.mark.parametrize(("port", "role"), [(9000, "api"), (9001, "web")])
def test_a_title_names_the_port(port: int, role: str) -> None:
    """granian's worker opens the socket, under a title that names it."""
    title = "granian asgi 0.0.0.0:9000 app:app worker-1"
    worker = renamed(
        11, title, 1, exec_argv=None, libraries=VLLM | {"granian"}, threads={"tokio-rt-worker": 1}
    )
    assert answers(worker, tcp(port, "0.0.0.0", 11, backlog=1024)) == {port: role}


@pytest.mark.parametrize(
    ("command", "port", "role"),
    [
        (f"{PY} /opt/venv/bin/gunicorn -c conf.py app:app", 9000, "api"),
        (f"{PY} /opt/venv/bin/hypercorn -c conf.toml app:app", 9000, "api"),
        (f"{PY} /opt/venv/bin/gunicorn -b 0.0.0.0:9001 app:app", 9000, "web"),
        (f"{PY} lit.py", 9000, "web"),
    ],
)
def test_a_port_in_a_file_that_cannot_be_read(command: str, port: int, role: str) -> None:
    """A web server's master opens the socket for its workers; another program's proves nothing."""
    known = {"exe": EXE, "threads": {"python3": 1}}
    found = answers(
        process(10, command, libraries=NO_TRANSPORT, **known),
        renamed(11, "python", 10, libraries=VLLM, argv=SPAWN, exec_argv=SPAWN),
        engine(12, 11),
        tcp(port, "0.0.0.0", 10, 11, backlog=2048),
    )
    assert found == {port: role}


def test_an_engine_that_was_forked_is_no_worker_of_a_web_server() -> None:
    """It holds its starter's sockets, whatever they are for."""
    front = process(10, f"{PY} /opt/venv/bin/gunicorn -c conf.py app:app", exe=EXE, libraries=VLLM)
    found = answers(front, engine(11, 10), tcp(9000, "0.0.0.0", 10, 11, backlog=2048))
    assert found == {9000: "web"}


INTERNAL = [
    # a ZMQ or plain server with a port flag
    (f"{PY} agent.py --port 9000", {"threads": ZMQ_THREADS}, {"backlog": 100}),
    (f"{PY} registry.py --port 9000", {"threads": {"python3": 1}}, {"backlog": 100}),
    (f"{PY} seed.py --port 9000", {"threads": {"python3": 1}}, {"backlog": 128}),
    (f"{PY} rpyc_server.py --port 9000", {"threads": {"python3": 1}}, {"backlog": 50}),
    # every engine maps aiohttp, as a client
    (
        f"{PY} app.py --port 9000",
        {"libraries": VLLM | {"aiohttp"}, "threads": ZMQ_THREADS},
        {"backlog": 128},
    ),
    # flags that name other ports
    (f"{PY} app.py --master-port 9000", {}, {"backlog": 2048}),
    (f"{PY} app.py --nccl-port 9000", {}, {"backlog": 2048}),
    (f"{PY} app.py --rpc-port 9000", {}, {"backlog": 2048}),
    (f"{PY} app.py --metrics-port 9000", {}, {"backlog": 2048}),
    (f"{PY} app.py --dist-init-addr 10.0.0.7:9000", {}, {"backlog": 2048}),
    # prometheus_client
    (f"{PY} app.py --port 9000", {}, {"backlog": 5}),
    # a store in the web server's own process
    (f"{PY} -m uvicorn app:app --port 8000", {"threads": STORE_THREADS}, {"backlog": -1}),
]


@pytest.mark.parametrize(("command", "fields", "socket"), INTERNAL)
def test_what_only_has_a_port_is_no_api(
    command: str, fields: dict[str, object], socket: dict[str, int]
) -> None:
    """Two strong pieces of evidence are needed, and a known fingerprint speaks against."""
    address = "::" if socket["backlog"] == -1 else "0.0.0.0"
    found = answers(
        process(10, command, **{"exe": EXE, "libraries": VLLM, **fields}),
        engine(11, 10),
        gloo(11),
        tcp(9000, address, 10, **socket),
    )
    assert audience(found) == {9000: "peers", 40111: "peers"}


def test_metrics_of_prometheus_are_no_api() -> None:
    """On uvicorn's own port, in a process that parses HTTP."""
    script = process(
        10, f"{PY} app.py", exe=EXE, libraries=VLLM | {"httptools"}, threads=ZMQ_THREADS
    )
    assert answers(script, tcp(8000, "0.0.0.0", 10, backlog=5)) == {8000: "unknown"}


def test_a_socket_that_leaked_into_a_server_stays_its_openers() -> None:
    """A service in Python that starts `vllm serve` is no master of it."""
    service = process(7, f"{PY} /usr/sbin/jobd", exe=EXE, libraries=NO_TRANSPORT)
    server = process(10, f"{PY} /opt/venv/bin/vllm serve m", 7, exe=EXE, libraries=VLLM)
    found = answers(service, server, tcp(6817, "0.0.0.0", 7, 10, backlog=128))
    assert found == {6817: "-"}


@pytest.mark.parametrize("part", ["VLLM::EngineCore", "VLLM::Worker_TP0", "sglang::scheduler"])
def test_engines_have_no_api(part: str) -> None:
    """Not even on a port of its starter's command line, with uvicorn's queue."""
    front = process(10, f"{PY} app.py --port 9000", exe=EXE, libraries=VLLM)
    found = answers(
        front, renamed(11, part, 10, libraries=VLLM), tcp(9000, "0.0.0.0", 11, backlog=2048)
    )
    assert audience(found) == {9000: "peers"}


def test_a_rank_with_a_web_server_is_unproven() -> None:
    """One rank of several: `web`, so that status can say how to open it."""
    found = answers(
        process(10, f"{PY} /opt/venv/bin/torchrun --nproc-per-node 2 t.py", exe=EXE),
        process(11, f"{PY} -u t.py --port 9000", 10, exe=EXE, env=RANK, threads=GLOO_THREADS,
                libraries=frozenset({"torch"})),
        gloo(11),
        tcp(9000, "0.0.0.0", 11, backlog=2048),
    )  # fmt: skip
    assert found == {9000: "web", 40111: "gloo"}


PODS = [
    (f"{PY} /opt/venv/bin/jupyter-lab --ip 0.0.0.0 --port 8888", {"zmq"}, 128),
    (f"{PY} /opt/venv/bin/jupyter-lab --ip 0.0.0.0 --port 8888", {"zmq", "torch"}, 128),
    (f"{PY} -m http.server 8888", set(), 5),
    (f"{PY} -m uvicorn app:app --port 8888", set(), 2048),
    (f"{PY} -m uvicorn app:app --port 8888", {"torch"}, 2048),
    (f"{PY} app.py", set(), 2048),
    (f"{PY} app.py", {"torch"}, 2048),
    (f"{PY} app.py", {"torch", "nccl"}, 2048),
    (f"{PY} /opt/venv/bin/streamlit run ui.py --server.port 8888", set(), 128),
    (f"{PY} /opt/venv/bin/flask run --port 8888", set(), 128),
    ("/usr/sbin/nginx -g 'daemon off;'", set(), 511),
    ("/usr/bin/node server.js", set(), 511),
]


# With torch mapped a transport is read, so that memory and reading agree.
REMEMBERED = [one for one in PODS if "torch" not in one[1]]


@pytest.mark.parametrize(
    ("command", "mapped", "backlog", "remembered"),
    [*((*one, False) for one in PODS), *((*one, True) for one in REMEMBERED)],
)
def test_the_environment_of_a_pod_claims_nothing(
    command: str, mapped: set[str], backlog: int, remembered: bool
) -> None:
    """Kubeflow and Volcano put RANK into every container; what is read outvotes memory."""
    from vllmwall.model import Stack

    fields: dict[str, object] = {"env": RANK, "libraries": frozenset(mapped)}
    if remembered:
        fields["remembered"] = Stack.TORCH
    if command.startswith(PY):
        fields["exe"] = EXE
    one = process(10, command, threads={"python3": 2}, **fields)
    assert answers(one, tcp(8888, "0.0.0.0", 10, backlog=backlog)) == {8888: "-"}


COMPANIONS = [
    f"{PY} chat_ui.py --port 8811 --model-url http://localhost:8081/v1",
    f"{PY} /opt/venv/bin/streamlit run ui.py --server.port 8811",
    f"{PY} /opt/venv/bin/tensorboard --logdir runs --port 8811 --bind_all",
    f"{PY} /opt/venv/bin/jupyter-lab --ip 0.0.0.0 --port 8811",
    f"{PY} /opt/venv/bin/open-webui serve --port 8811",
    f"{PY} -m gradio demo.py",
    "/usr/bin/node_exporter --web.listen-address=:8811",
    "/usr/bin/dcgm-exporter --address :8811",
    f"{PY} -m uvicorn ui:app --port 8811",
    "/usr/bin/node ui.js --port 8811",
]


@pytest.mark.parametrize("command", COMPANIONS)
@pytest.mark.parametrize("where", ["ray task", "notebook"])
def test_companions_are_not_the_workloads(command: str, where: str) -> None:
    """Programs of their own beside a job keep their ports."""
    known = {"libraries": NO_TRANSPORT, "threads": {"x": 3}}
    if command.startswith(PY):
        known["exe"] = EXE  # type: ignore[assignment]
    shell = process(20, "/bin/bash task.sh", 10, exe="/usr/bin/bash")
    if where == "ray task":
        root = renamed(10, "ray::task", 1, libraries=frozenset({"ray"}), threads={"worker.io": 2})
    else:
        root = process(10, f"{PY} -m ipykernel_launcher -f k.json", exe=EXE, libraries=VLLM)
    one = process(21, command, 20, **known)
    found = answers(root, shell, one, tcp(8811, "0.0.0.0", 21, backlog=2048))
    assert found == {8811: "-"}


def test_a_plain_server_that_a_shell_started_is_no_companion() -> None:
    """It may be a store or a registry of the job: nothing shows a web server."""
    root = renamed(10, "ray::task", 1, libraries=frozenset({"ray"}), threads={"worker.io": 2})
    shell = process(20, "/bin/bash task.sh", 10, exe="/usr/bin/bash")
    command, read = f"{PY} kv.py --port 8811", {"libraries": NO_TRANSPORT, "threads": {"x": 1}}
    one = process(21, command, 20, exe=EXE, **read)
    assert answers(root, shell, one, tcp(8811, "0.0.0.0", 21, backlog=100)) == {8811: "unknown"}


def test_a_helper_that_carries_a_transport_is_no_companion() -> None:
    """A shell's child that maps torch stays in the job."""
    root = process(10, f"{PY} drive.py", exe=EXE, libraries=VLLM)
    shell = process(20, "/bin/bash task.sh", 10, exe="/usr/bin/bash")
    torch = frozenset({"torch"})
    one = process(21, f"{PY} part.py --port 8811", 20, exe=EXE, libraries=torch)
    found = answers(root, shell, one, tcp(8811, "0.0.0.0", 21, backlog=2048))
    assert found != {8811: "-"}


@pytest.mark.parametrize(
    ("command", "claimed"),
    [
        (f"{PY} disagg_proxy_xyz.py", True),
        (f"{PY} my_xpyd_proxy.py", True),
        (f"{PY} /usr/bin/salt-master", False),
        (f"{PY} /opt/venv/bin/locust -f f.py --master", False),
    ],
)
def test_registration_ports_of_proxies(command: str, claimed: bool) -> None:
    """Instances of P2P-NCCL register by ZMQ with a proxy; other programs use ZMQ too."""
    proxy = process(10, command, exe=EXE, libraries=frozenset({"zmq"}), threads=ZMQ_THREADS)
    found = answers(proxy, tcp(30001, "0.0.0.0", 10, backlog=100))
    assert audience(found) == {30001: "peers" if claimed else "none"}


def test_servers_that_a_gateway_started_are_its_own() -> None:
    """GPUStack's API is public, the servers that it starts are not."""
    gpustack = process(10, f"{PY} /opt/venv/bin/gpustack start --port 80", exe=EXE,
                       libraries=NO_TRANSPORT)  # fmt: skip
    server = process(11, f"{PY} /opt/venv/bin/vllm serve m --port 40000", 10, exe=EXE,
                     libraries=VLLM)  # fmt: skip
    found = answers(
        gpustack,
        server,
        tcp(80, "0.0.0.0", 10, backlog=2048),
        tcp(10150, "0.0.0.0", 10, backlog=2048),
        tcp(40000, "0.0.0.0", 11, backlog=2048),
    )
    assert audience(found) == {80: "public", 10150: "peers", 40000: "peers"}


TRANSPORT = [
    ("nccl", f"{PY} own.py", {"libraries": {"nccl", "torch"}}, (HOST, 16384), "nccl"),
    ("nccl C++", "/opt/nccl-tests/all_reduce_perf -b 8", {"libraries": {"nccl"}}, (HOST, 16384),
     "nccl"),
    ("nccl linked in", "/opt/trainer --x", {"libraries": {"cuda"}}, (HOST, 16384), "nccl"),
    ("mpi", "/opt/a.out", {"libraries": {"mpi"}}, ("0.0.0.0", 128), "mpi"),
    ("mpi4py", f"{PY} solve.py", {"libraries": {"mpi"}}, ("0.0.0.0", 4096), "mpi"),
    ("ucx", "/opt/a.out", {"libraries": {"ucx"}}, (HOST, 4096), "kv-transfer"),
    ("jax by library", f"{PY} t.py", {"libraries": {"jax"}}, ("::", 4096), "rendezvous"),
    ("jax by shape", f"{PY} t.py", {"libraries": set(),
      "threads": {"event_engine": 4, "grpc_global_tim": 1}}, (HOST, -1), "gloo"),
    ("store", f"{PY} t.py", {"libraries": {"torch"}, "threads": STORE_THREADS}, ("::", -1),
     "tcpstore"),
    ("gloo", f"{PY} t.py", {"libraries": {"torch"}, "threads": GLOO_THREADS}, (HOST, -1), "gloo"),
]  # fmt: skip


@pytest.mark.parametrize("member", TRANSPORT, ids=[str(one[0]) for one in TRANSPORT])
@pytest.mark.parametrize(
    "parent", ["/bin/bash run.sh", "/usr/bin/tini -- x", "/usr/sbin/slurmstepd"]
)
def test_transports_are_claimed_under_any_parent(
    member: tuple[str, str, dict[str, object], tuple[str, int], str], parent: str
) -> None:
    """No launcher, no title, no environment: what it maps and how it listens is enough."""
    _, command, fields, (address, backlog), role = member
    given = {**fields, "libraries": frozenset(fields["libraries"])}  # type: ignore[call-overload]
    if command.startswith(PY):
        given["exe"] = EXE
    found = answers(
        process(9, parent),
        process(10, command, 9, **given),
        tcp(33333, address, 10, backlog=backlog),
    )
    assert found == {33333: role}


PROGRAMS = [
    (f"{PY} -m dynamo.frontend --http-port 8787", [(8787, "0.0.0.0", 128, "api"),
     (41000, HOST, 128, "dynamo-request-plane")]),
    (f"{PY} -m dynamo.router", [(41000, HOST, 1024, "dynamo-request-plane"),
     (41001, "0.0.0.0", 100, "kv-events"), (8081, "0.0.0.0", 128, "metrics")]),
    (f"{PY} /opt/venv/bin/trtllm-serve m --port 9000", [(9000, "0.0.0.0", 2048, "api")]),
    ("/opt/tritonserver/bin/tritonserver --model-repository=/m --http-port=9000",
     [(9000, "0.0.0.0", 128, "api"), (8001, "0.0.0.0", 4096, "api"),
      (8002, "0.0.0.0", 128, "metrics")]),
    ("/usr/bin/text-generation-router --port 9000", [(9000, "0.0.0.0", 1024, "api"),
     (9000 + 1, "0.0.0.0", 1024, "unknown")]),
    ("/usr/bin/text-generation-launcher --model-id m -p 8088", [(8088, "0.0.0.0", 1024, "api")]),
    ("/opt/llama.cpp/rpc-server -H 0.0.0.0 -p 50052", [(50052, "0.0.0.0", 1, "kv-transfer")]),
    ("/opt/llama.cpp/llama-server --host 0.0.0.0 --port 9000", [(9000, "0.0.0.0", 512, "api")]),
    ("/usr/local/bin/ollama serve", [(11434, "::", 4096, "api")]),
    ("/usr/bin/mpirun -np 2 ./a.out", [(41000, "0.0.0.0", 128, "mpi")]),
    ("/usr/bin/orted -mca x y", [(41000, "0.0.0.0", 128, "mpi")]),
    (f"{PY} /opt/venv/bin/trl vllm-serve --port 9000", [(9000, "0.0.0.0", 2048, "backend")]),
    (f"{PY} /opt/venv/bin/trl vllm-serve --model m", [(8000, "0.0.0.0", 2048, "backend")]),
    (f"{PY} -m lightllm.server.api_server --port 9000", [(9000, "0.0.0.0", 2048, "api"),
     (31001, "0.0.0.0", 10, "unknown")]),
    (f"{PY} /opt/venv/bin/xinference-supervisor -H 0.0.0.0 -p 9990",
     [(9990, "0.0.0.0", 2048, "api"), (34000, "0.0.0.0", 100, "unknown")]),
    ("/app/pd-sidecar -port 8000 -vllm-port 8200", [(8000, "0.0.0.0", 4096, "api")]),
    (f"{PY} /opt/venv/bin/vllm-router --port 9000 --prometheus-port 29001",
     [(29001, "0.0.0.0", 128, "metrics"), (9000, "0.0.0.0", 128, "api")]),
    (f"{PY} /opt/venv/bin/smg launch --port 9000", [(29000, "0.0.0.0", 128, "metrics"),
     (9000, "0.0.0.0", -1, "api")]),
    ("/usr/bin/mooncake_master --port 50051", [(50051, "0.0.0.0", 4096, "kv-transfer"),
     (9003, "0.0.0.0", 128, "metrics")]),
]  # fmt: skip


@pytest.mark.parametrize(("command", "sockets"), PROGRAMS, ids=[one[0][:60] for one in PROGRAMS])
def test_programs_of_the_data_file(command: str, sockets: list[tuple[int, str, int, str]]) -> None:
    """A row names the ports of each kind of program; the rest is for peers."""
    fields: dict[str, object] = {"libraries": NO_TRANSPORT, "threads": {"x": 1}}
    if command.startswith(PY):
        fields["exe"] = EXE
    parts = [tcp(port, at, 10, backlog=backlog) for port, at, backlog, _ in sockets]
    found = answers(process(10, command, **fields), *parts)
    assert found == {port: role for port, _, _, role in sockets}
