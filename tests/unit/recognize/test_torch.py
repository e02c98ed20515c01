"""torch.distributed: launchers, ranks and scripts that no title gives away."""

from __future__ import annotations

import pytest

from tests.unit.recognize.node_builder import (
    GLOO_THREADS,
    SPAWN,
    STORE_THREADS,
    process,
    roles,
    seen,
    stacks,
    tcp,
)

PYTHON = "/venv/bin/python3"
RANK = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "29500"}
HOST = "10.0.0.7"


@pytest.mark.parametrize(
    "command",
    [
        f"{PYTHON} /venv/bin/torchrun --nproc-per-node 2 train.py",
        f"{PYTHON} -m torch.distributed.run --master-port 29600 train.py",
        f"{PYTHON} -m torch.distributed.launch train.py",
        f"{PYTHON} /venv/bin/accelerate launch --cpu train.py",
        f"{PYTHON} -m accelerate.commands.launch train.py",
        f"{PYTHON} /venv/bin/deepspeed train.py",
    ],
)
def test_launchers_are_workloads_before_they_listen(command: str) -> None:
    """A launcher alone is a workload, named after the script."""
    assert stacks(seen(process(10, command))) == [("torch", "train.py", 10)]


def test_accelerate_without_launch_is_no_job() -> None:
    """``accelerate config`` and ``accelerate test`` open nothing."""
    assert not stacks(seen(process(10, f"{PYTHON} /venv/bin/accelerate config")))


def test_static_launcher_owns_the_store_and_ranks_gloo() -> None:
    """The agent holds TCPStores on [::]; each rank one gloo listener on one address."""
    found = seen(
        process(
            10,
            f"{PYTHON} -m torch.distributed.run --master-port 29600 train.py",
            comm="pt_elastic",
            threads={"pt_elastic": 2, **STORE_THREADS},
        ),
        process(11, f"{PYTHON} -u train.py", 10, env=RANK, threads=GLOO_THREADS),
        tcp(29600, "::", 10, backlog=-1),
        tcp(40001, "127.0.1.1", 11, backlog=-1),
    )
    assert roles(found) == {29600: "tcpstore", 40001: "gloo"}
    assert stacks(found) == [("torch", "train.py", 10)]


def test_renamed_agent_is_known_without_its_command_line() -> None:
    """torchrun names its main thread ``pt_elastic``; its wildcard listener is a store."""
    agent = process(10, "", comm="pt_elastic")
    assert roles(seen(agent, tcp(41000, "::", 10))) == {41000: "tcpstore"}
    assert roles(seen(agent, tcp(41000, "::", 10, queue_limit=4096))) == {41000: "tcpstore"}
    assert roles(seen(agent, tcp(41000, "0.0.0.0", 10, backlog=10))) == {41000: "unknown"}


def test_plain_script_is_known_by_its_environment() -> None:
    """A launcher's variables make a Python a rank; MASTER_PORT names the store."""
    script = process(10, f"{PYTHON} train.py", env=RANK)
    found = seen(script, tcp(29500, "::", 10), tcp(8000, "0.0.0.0", 10, backlog=2048))
    assert roles(found) == {29500: "tcpstore", 8000: "web"}


def test_environment_alone_does_not_claim_what_is_not_torch() -> None:
    """A shell that exports RANK does not make its web server or its vi a training job."""
    without = {"env": RANK, "libraries": frozenset()}
    server = process(10, f"{PYTHON} -m http.server", **without)
    assert roles(seen(server, tcp(8000, "0.0.0.0", 10, backlog=5))) == {8000: "-"}
    assert not stacks(seen(process(10, "vi train.py", env=RANK)))


def test_half_the_environment_is_not_enough() -> None:
    """RANK and WORLD_SIZE are set by many programs; all four belong to torch."""
    env = {"RANK": "0", "WORLD_SIZE": "2"}
    assert not stacks(seen(process(10, f"{PYTHON} train.py", env=env)))


def test_threads_come_after_listen() -> None:
    """In the first moment there are no torch threads; torch mapped and listen(-1) tell."""
    early = {"libraries": frozenset({"torch"}), "threads": {"python3": 1}}
    script = process(10, f"{PYTHON} train.py", **early)
    found = seen(script, tcp(29500, "::", 10, backlog=-1), tcp(40001, HOST, 10, backlog=-1))
    assert roles(found) == {29500: "tcpstore", 40001: "gloo"}


def test_python_that_only_imports_torch_is_no_workload() -> None:
    """A web server that has torch mapped keeps its port."""
    app = process(10, f"{PYTHON} app.py", libraries=frozenset({"torch"}))
    assert roles(seen(app, tcp(8000, "0.0.0.0", 10, backlog=2048))) == {8000: "-"}


def test_rust_server_in_python_is_no_torch() -> None:
    """Tokio calls listen(-1) too; its threads tell, and so do threads without torch."""
    for threads in ({"tokio-runtime-w": 4}, {"python3": 4}):
        app = process(10, f"{PYTHON} app.py", threads=threads)
        assert roles(seen(app, tcp(8000, "0.0.0.0", 10, backlog=-1))) == {8000: "-"}
    app = process(10, f"{PYTHON} a.py", threads={"tokio": 1}, libraries=frozenset({"torch"}))
    assert roles(seen(app, tcp(8000, "0.0.0.0", 10, backlog=-1))) == {8000: "-"}


def test_nothing_known_but_minus_one_is_torch() -> None:
    """Where neither threads nor libraries could be read, listen(-1) in Python is enough."""
    script = process(10, f"{PYTHON} train.py")
    found = seen(script, tcp(29500, "::", 10, backlog=-1), tcp(40001, HOST, 10, backlog=-1))
    assert roles(found) == {29500: "tcpstore", 40001: "gloo"}
    native = process(10, "/usr/sbin/thing")
    assert roles(seen(native, tcp(29500, "::", 10, backlog=-1))) == {29500: "-"}


def test_tensorpipe_and_debug_servers() -> None:
    """rpc listens many times on one address; torch's debug servers are for people on the node."""
    threads = {"TP_UV_loop": 2, "pt_workerserver": 1, "pt_thread_pool": 1}
    script = process(10, f"{PYTHON} rpc.py", threads=threads)
    found = seen(
        script,
        tcp(40001, HOST, 10, backlog=128),
        tcp(40002, "0.0.0.0", 10, backlog=128),
        tcp(40003, "::", 10, backlog=5),
        tcp(25999, "::", 10, backlog=7),
        tcp(40004, HOST, 10, backlog=7),
    )
    assert roles(found) == {
        40001: "tensorpipe",
        40002: "unknown",
        40003: "debug",
        25999: "debug",
        40004: "unknown",
    }


def test_spawned_ranks_belong_to_the_script_that_spawned_them() -> None:
    """``mp.spawn``: the script itself shows nothing of torch, its children do."""
    found = seen(
        process(10, f"{PYTHON} main.py"),
        process(11, " ".join(SPAWN[:2]), 10, exec_argv=SPAWN, threads=GLOO_THREADS),
        process(12, " ".join(SPAWN[:2]), 10, exec_argv=SPAWN, threads=GLOO_THREADS),
        tcp(40001, HOST, 11, backlog=-1),
    )
    assert stacks(found) == [("torch", "main.py", 10)]
    assert found.workloads[0].pids == {10, 11, 12}


def test_ranks_of_a_fork_server_belong_to_the_script() -> None:
    """With the forkserver method there is a process of Python's between them."""
    server = (PYTHON, "-c", "from multiprocessing.forkserver import main; main(3)")
    found = seen(
        process(10, f"{PYTHON} main.py"),
        process(11, "", 10, argv=server, exec_argv=server, exe="/usr/bin/python3"),
        process(
            12, "", 11, argv=server, exec_argv=server, exe="/usr/bin/python3", threads=GLOO_THREADS
        ),
    )
    assert stacks(found) == [("torch", "main.py", 10)]
