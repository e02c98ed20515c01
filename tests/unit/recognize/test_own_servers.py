"""Own servers around an engine: any framework, wrapper and name of the port, seen early or late.

Crafted: argv and backlog of `listen()` are those of each framework's documentation or source. The
right answers were written before the first run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import pytest

from tests.unit.recognize.node_builder import (
    SPAWN,
    ZMQ_THREADS,
    process,
    renamed,
    roles,
    seen,
    tcp,
)
from vllmwall.model import Listener, Process

PYTHON = "/venv/bin/python3"
BIN = f"{PYTHON} /venv/bin/"
ENGINE = frozenset({"vllm", "torch", "zmq", "cuda"})
H11: frozenset[str] = frozenset()
PARSER = frozenset({"httptools"})
GRANIAN, TORNADO = frozenset({"granian"}), frozenset({"tornado"})
ROBYN = frozenset({"robyn"})
CAPS = (4096, 1024, 128)
"""Values of net.core.somaxconn: of kernels since 5.4, of operators, of older kernels."""
WRAPPERS = {
    "": (),
    "tini": ("/usr/bin/tini -- x",),
    "conda run": (f"{PYTHON} /opt/conda/bin/conda run -n x y", "/bin/bash /tmp/tmpabc"),
    "uv run": ("/usr/bin/uv run x",),
    "sh": ("/bin/sh -c x",),
}


@dataclass(frozen=True)
class Own:
    """One server. ``workers``: how its master starts them; empty: it serves itself. ``beside``:
    other ports of its engine's process, and their backlogs; all are internal."""

    argv: str
    port: int
    backlog: int
    libraries: frozenset[str] = H11
    variable: str = ""
    workers: str = ""
    title: str = ""
    beside: tuple[tuple[int, str, int], ...] = ()

    def node(self, wrapper: str, late: str, cap: int) -> list[Process | Listener]:
        """It and its engine, started by a wrapper. ``late``: without what only a birth shows."""
        above = WRAPPERS[wrapper]
        parts = [process(50 + n, argv, 49 + n if n else 1) for n, argv in enumerate(above)]
        servers = list(self._servers(49 + len(above) if above else 1))
        parts += [replace(one, exec_argv=None) if late == "titles" else one for one in servers]
        parts.append(
            renamed(200, "VLLM::EngineCore", servers[-1].pid, libraries=ENGINE, threads=ZMQ_THREADS)
        )
        opened = [(self.port, "0.0.0.0", self.backlog), (41000, "10.0.0.1", 100), *self.beside]
        owners = [tuple(one.pid for one in servers), (200,), *((servers[-1].pid,),) * 9]
        return parts + [
            tcp(
                port,
                address,
                *pids,
                backlog=None if late else backlog,
                queue_limit=cut(backlog, cap),
            )
            for (port, address, backlog), pids in zip(opened, owners, strict=False)
        ]

    def _servers(self, parent: int) -> Iterator[Process]:
        name, _, value = self.variable.partition("=")
        env = {name: value} if name else {}
        argv = {"argv": (self.title,), "comm": self.title[:15]} if self.title else {}
        fields = {"env": env, "libraries": self.libraries, "threads": {"python3": 1}, **argv}
        if self.workers:
            yield process(100, self.argv, parent, **fields)
        fields |= {"libraries": self.libraries | ENGINE, "threads": ZMQ_THREADS}
        if self.workers == "spawn":
            fields |= {"argv": SPAWN, "exec_argv": SPAWN}
        yield process(110, self.argv, 100 if self.workers else parent, **fields)


def cut(backlog: int, cap: int) -> int:
    """What sock_diag shows."""
    return min(backlog if backlog >= 0 else cap, cap)


def gunicorn(arguments: str, port: int, **fields: str) -> Own:
    return Own(f"{BIN}gunicorn {arguments} app:app", port, 2048, workers="fork", **fields)


def hypercorn(arguments: str, port: int, workers: str = "spawn") -> Own:
    return Own(f"{BIN}hypercorn {arguments} app:app", port, 100, workers=workers)


FLAG = ("--port 8123", "--port=8123", "--port 8123 --ssl-keyfile k.pem --ssl-certfile c.pem")
BIND = ("-b 0.0.0.0:8123", "--bind 0.0.0.0:8123", "--bind=[::]:8123", "-b :8123", "-b0.0.0.0:8123")
PUBLIC = [
    *(
        one
        for flag in FLAG
        for one in (
            Own(f"{BIN}uvicorn app:app --host 0.0.0.0 {flag}", 8123, 2048, PARSER),
            Own(f"{BIN}uvicorn app:app --workers 2 {flag}", 8123, 2048, PARSER, workers="spawn"),
            Own(f"{PYTHON} -m uvicorn app:app {flag}", 8123, 2048, H11),
            Own(f"{PYTHON} server.py {flag}", 8123, 2048, PARSER),
            Own(f"{PYTHON} -m my.server {flag}", 8123, 2048, PARSER),
            Own(f"{BIN}my-llm-server {flag}", 8123, 2048, PARSER),
            Own(f"{PYTHON} /nix/store/x/bin/.my-llm-wrapped {flag}", 8123, 2048, PARSER),
            Own(f"{PYTHON} -m coverage run server.py {flag}", 8123, 2048, PARSER),
            Own(f"{BIN}ddtrace-run uvicorn app:app {flag}", 8123, 2048, PARSER),
            Own(f"{BIN}fastapi run app.py {flag}", 8123, 2048, PARSER),
            Own(f"{BIN}litestar --app app:app run -H 0.0.0.0 {flag}", 8123, 2048),
            Own(f"{BIN}granian {flag} app:app", 8123, 1024, GRANIAN, workers="spawn"),
            Own(f"{BIN}granian --host 0.0.0.0 {flag} app:app", 8123, 1024, GRANIAN, workers="fork"),
            Own(f"{BIN}sanic app:app --host 0.0.0.0 {flag}", 8123, 100, workers="spawn"),
            Own(f"{BIN}sanic app:app --single-process {flag}", 8123, 100),
            Own(f"{PYTHON} app.py {flag}", 8123, 4096, ROBYN),
            Own(f"{BIN}quart run --host 0.0.0.0 {flag}", 8123, 100),
            Own(f"{BIN}flask --app app run --host 0.0.0.0 {flag}", 8123, 128),
            Own(f"{BIN}waitress-serve --host 0.0.0.0 {flag} app:app", 8123, 1024),
            Own(f"{BIN}daphne -b 0.0.0.0 {flag} app:app", 8123, 50),
            Own(f"{BIN}chainlit run app.py {flag}", 8123, 2048, PARSER),
            Own(f"{PYTHON} serve_tornado.py {flag}", 8123, 128, TORNADO),
        )
    ),
    *(
        one
        for bind in BIND
        for one in (
            gunicorn(bind, 8123),
            gunicorn(f"-k uvicorn.workers.UvicornWorker {bind}", 8123),
            gunicorn(bind, 8123, title="gunicorn: master [app:app]"),
            hypercorn(bind, 8123),
            hypercorn(f"-w 0 {bind}", 8123, workers=""),
        )
    ),
    gunicorn("", 8000),
    gunicorn("-c gunicorn.conf.py", 9009),
    gunicorn("-c gunicorn.conf.py", 9009, title="gunicorn: master [app:app]"),
    gunicorn("", 9010, variable="PORT=9010"),
    hypercorn("-c hypercorn.toml", 9009),
    Own(f"{BIN}uvicorn app:app", 9001, 2048, PARSER, "UVICORN_PORT=9001"),
    Own(f"{BIN}uvicorn app:app", 8000, 2048, PARSER),
    Own(f"{PYTHON} server.py", 9001, 2048, PARSER, "PORT=9001"),
    Own(f"{PYTHON} server.py", 8000, 2048, PARSER, "PORT=9001"),
    Own(f"{PYTHON} server.py --listen 0.0.0.0:9001", 9001, 2048, PARSER),
    Own(f"{PYTHON} server.py -p 9001", 9001, 2048, PARSER),
    Own(f"{PYTHON} server.py -p9001", 9001, 2048, PARSER),
    Own(f"{PYTHON} server.py", 8000, 2048, PARSER),
    Own(f"{BIN}fastapi dev --host 0.0.0.0 app.py", 8000, 2048, PARSER),
    Own(f"{BIN}flask run", 5055, 128, H11, "FLASK_RUN_PORT=5055"),
    Own(f"{PYTHON} -m flask run -p 5055", 5055, 128),
    Own(f"{PYTHON} -m flask run", 5000, 128),
    Own(f"{PYTHON} -m aiohttp.web -H 0.0.0.0 -P 8081 app:init", 8081, 128),
    Own(f"{PYTHON} -m quart run", 5000, 100),
    Own(f"{PYTHON} app.py", 8080, 4096, ROBYN),  # seen: -m robyn starts it
    Own(f"{BIN}litestar run", 9001, 2048, H11, "LITESTAR_PORT=9001"),
    Own(f"{BIN}granian app:app", 9001, 1024, GRANIAN, "GRANIAN_PORT=9001", workers="spawn"),
    Own(f"{BIN}waitress-serve --listen=*:9001 app:app", 9001, 1024),
    Own(f"{PYTHON} demo.py", 7860, 2048, PARSER, "GRADIO_SERVER_PORT=7860"),
    Own(f"{BIN}streamlit run app.py --server.port=8600", 8600, 128, TORNADO),
    Own(f"{PYTHON} -m streamlit run app.py", 8501, 128, TORNADO),
    Own(f"{PYTHON} -m streamlit run app.py", 8601, 128, TORNADO, "STREAMLIT_SERVER_PORT=8601"),
    # the same process holds what is for peers
    Own(f"{PYTHON} server.py --port 8123 --zmq-port 5555", 8123, 2048, PARSER,
        beside=((5555, "0.0.0.0", 100), (5556, "0.0.0.0", 128))),
    Own(f"{PYTHON} server.py --port 8123 --metrics-port 9100", 8123, 2048, PARSER,
        beside=((9100, "0.0.0.0", 5), (9101, "0.0.0.0", 128))),
    Own(f"{PYTHON} server.py --port 8123 --master-port 29500", 8123, 2048, PARSER,
        beside=((29500, "::", -1), (25999, "0.0.0.0", 128))),
    Own(f"{PYTHON} server.py --port 8123 --grpc-port 50051 --control-port 7000", 8123, 2048, PARSER,
        beside=((50051, "::", 4096), (7000, "0.0.0.0", 128), (7001, "0.0.0.0", 2048))),
    Own(f"{PYTHON} -m debugpy --listen 0.0.0.0:5678 -m uvicorn app:app --port 8123", 8123, 2048,
        PARSER, beside=((5678, "0.0.0.0", 4096),)),
]  # fmt: skip
HINTS = [
    *(
        Own(f"{PYTHON} serve_x.py {flag}", 8123, backlog, libraries)
        for flag in FLAG
        for backlog, libraries in (
            (128, H11),
            (1024, H11),
            (50, H11),
            (128, frozenset({"aiohttp"})),
        )
    ),
    Own(f"{PYTHON} serve_x.py", 8123, 128, H11, "PORT=8123"),
    Own(f"{PYTHON} server.py 8123", 8123, 2048, PARSER),
    Own(f"{PYTHON} server.py --config c.yaml", 8123, 2048, PARSER),
    Own(f"{PYTHON} -c import_and_run", 8000, 2048, PARSER),
]
TWINS = [
    *(
        one
        for flag in FLAG
        for one in (
            Own(f"{PYTHON} rpyc_agent.py {flag}", 8123, 4096),
            Own(f"{PYTHON} rpc_agent.py {flag}", 8123, -1),
            Own(f"{PYTHON} zmq_agent.py {flag}", 8123, 100),
            Own(f"{PYTHON} agent.py {flag}", 8123, 5),
            Own(f"{PYTHON} agent.py {flag}", 8123, 1),
            Own(f"{PYTHON} agent.py {flag}", 8123, 128),
            Own(f"{PYTHON} nixl_agent.py {flag}", 8123, 4096, frozenset({"nixl", "ucx"})),
            Own(f"{BIN}trl vllm-serve --model m {flag}", 8123, 2048, PARSER),
            Own(f"{PYTHON} -m trl.scripts.vllm_serve --model m {flag}", 8123, 2048, PARSER),
            Own(f"{PYTHON} weight_update_server.py {flag}", 8123, 2048, PARSER),
            Own(f"{PYTHON} weight_server.py {flag}", 8123, 2048, PARSER),
            Own(f"{PYTHON} my_weight_sync.py {flag}", 8123, 2048, PARSER),
            Own(f"{PYTHON} -m skyrl_train.inference_engines.vllm.vllm_server {flag}", 8123, 2048,
                PARSER),
            Own(f"{PYTHON} -m skyrl.backends.skyrl_train.inference_engines.vllm.vllm_server {flag}",
                8123, 2048, PARSER),
            Own(f"{PYTHON} -m pipelinerl.entrypoints.run_vllm1 {flag}", 8123, 2048, PARSER),
            Own(f"{PYTHON} -m areal.engine.vllm_ext.areal_vllm_server --model m {flag}", 8123, 2048,
                PARSER),
            Own(f"{PYTHON} -m openrlhf.cli.serve_rm {flag}", 8123, 2048, PARSER),
            Own(f"{PYTHON} -m prime_rl.inference.server {flag}", 8123, 2048, PARSER),
        )
    ),
    Own(f"{PYTHON} -m ipykernel_launcher -f /x.json", 50001, 100),
]  # fmt: skip


def found(own: Own) -> Iterator[tuple[str, dict[int | str, str]]]:
    """How it was started and seen, and the role of each port."""
    for wrapper, late, cap in product(WRAPPERS, ("", "backlogs", "titles"), CAPS):
        yield f"{wrapper}/{late}/{cap}", roles(seen(*own.node(wrapper, late, cap)))


def name(own: Own) -> str:
    return (
        f"{own.argv.removeprefix(PYTHON).strip()} {own.variable} {own.workers} {own.title}".strip()
    )


@pytest.mark.parametrize("own", PUBLIC, ids=name)
def test_the_port_that_was_asked_for_is_the_api(own: Own) -> None:
    """However it was started and whenever it is seen; everything beside it is for peers."""
    for how, by_port in found(own):
        assert by_port.pop(own.port) == "api", how
        assert {"api", "-"}.isdisjoint(by_port.values()), how


@pytest.mark.parametrize("own", HINTS, ids=name)
def test_what_may_be_a_web_server_is_told(own: Own) -> None:
    """For peers, and `status` names it with the command that opens it."""
    for how, by_port in found(own):
        assert by_port[own.port] == "web", how


@pytest.mark.parametrize("own", TWINS, ids=name)
def test_what_only_looks_like_it_is_for_peers(own: Own) -> None:
    """A plain TCP or ZMQ server with a port flag, and servers whose routes steer training."""
    for how, by_port in found(own):
        assert {"api", "-"}.isdisjoint(by_port.values()), how


def test_a_queue_that_somaxconn_cut_is_no_evidence() -> None:
    """RPyC's 4096 and uvicorn's 2048 look the same there. The event's own number does not count:
    who comes later does not have it, and must give the same answer."""
    own = Own(f"{PYTHON} server.py --port 8123", 8123, 2048)
    assert {
        (late, cap): roles(seen(*own.node("", late, cap)))[8123]
        for late, cap in product(("", "backlogs"), CAPS)
    } == {
        (late, cap): "api" if cap > 2048 else "web" for late, cap in product(("", "backlogs"), CAPS)
    }
