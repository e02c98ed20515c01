"""Ray nodes, drivers and Serve beyond the recordings."""

from __future__ import annotations

import pytest

from tests.unit.recognize.node_builder import (
    GLOO_THREADS,
    STORE_THREADS,
    api_ports,
    process,
    renamed,
    roles,
    seen,
    stacks,
    tcp,
    unix,
)
from vllmwall.model import Process, RaySession

PYTHON = "/venv/bin/python3"
SITE = "/venv/lib/python3.11/site-packages/ray"
SESSION = "session_2026-01-02_03-04-05_678901_10"
DIR = f"--session-dir=/tmp/ray/{SESSION}"
HOST = "10.0.0.7"


def raylet(pid: int, ppid: int, flags: str = "", **fields: object) -> Process:
    """A raylet with these flags."""
    return process(pid, f"{SITE}/core/src/ray/raylet/raylet {DIR} {flags}", ppid, **fields)


def gcs(pid: int, ppid: int, flags: str = "", **fields: object) -> Process:
    """A GCS with these flags."""
    return process(pid, f"{SITE}/core/src/ray/gcs/gcs_server {DIR} {flags}", ppid, **fields)


def worker(pid: int, title: str, ppid: int, **fields: object) -> Process:
    """A Ray worker that renamed itself."""
    command = (PYTHON, f"{SITE}/_private/workers/default_worker.py", "--node-manager-port=7001")
    return renamed(pid, title, ppid, exec_argv=command, **fields)


def test_every_port_flag_is_read() -> None:
    """Ports given by flag are told apart without order, backlog or session files."""
    agent = (
        PYTHON,
        f"{SITE}/dashboard/agent.py",
        "--metrics-export-port=7005",
        "--grpc-port=7006",
        "--listen-port=7007",
    )
    found = seen(
        process(10, f"{PYTHON} /venv/bin/ray start --head --port 6380 --block"),
        gcs(11, 10, "--gcs_server_port=6380"),
        raylet(
            12,
            10,
            "--node_manager_port=7001 --object_manager_port=7002 "
            "--min_worker_port=20000 --max_worker_port=20010",
        ),
        process(13, f"{PYTHON} {SITE}/dashboard/dashboard.py --host=0.0.0.0 --port=8266", 10),
        process(14, f"{PYTHON} -m ray.util.client.server --port=10002", 10),
        process(15, f"{PYTHON} {SITE}/autoscaler/_private/monitor.py", 10),
        process(16, f"{PYTHON} {SITE}/_private/log_monitor.py", 10),
        renamed(17, "ray::DashboardAgent", 12, exec_argv=agent),
        renamed(18, "ray::RuntimeEnvAgent", 12),
        worker(19, "ray::IDLE", 12),
        renamed(20, "ray-dashboard-JobHead-0", 13),
        *(
            tcp(port, "0.0.0.0", pid)
            for port, pid in (
                (6380, 11),
                (7001, 12),
                (7002, 12),
                (8266, 13),
                (44227, 13),
                (10002, 14),
                (44217, 15),
                (7005, 17),
                (7006, 17),
                (7007, 17),
                (7008, 18),
                (20005, 19),
            )
        ),
        tcp(8267, HOST, 13),
        unix("/tmp/ray/sock", 20),
        tcp(1234, HOST, 20),
    )
    assert stacks(found) == [("ray", "head", 10)]
    assert roles(found) == {
        6380: "ray-gcs", 7001: "ray-node-manager", 7002: "ray-object-manager",
        8266: "ray-dashboard", 44227: "ray-metrics", 10002: "ray-client-server",
        44217: "ray-metrics", 7005: "ray-metrics-export", 7006: "ray-dashboard-agent-grpc",
        7007: "ray-dashboard-agent-http", 7008: "ray-runtime-env-agent", 20005: "ray-worker",
        8267: "ray-dashboard", "/tmp/ray/sock": "unix", 1234: "unknown",
    }  # fmt: skip


def test_session_files_name_the_random_ports() -> None:
    """Ray writes its random ports into its session directory."""
    session = RaySession(
        f"/tmp/ray/{SESSION}",
        {
            "gcs_server_port": (50001,),
            "metrics_agent_port": (50002,),
            "metrics_export_port": (50003,),
            "dashboard_agent_listen_port": (50004,),
        },
    )
    listeners = [tcp(50001, "::", 11), *(tcp(port, "::", 12) for port in (50002, 50003, 50004))]
    agent = renamed(12, "ray::DashboardAgent", 1)
    found = seen(gcs(11, 1), agent, session, *listeners)
    assert roles(found) == {
        50001: "ray-gcs", 50002: "ray-dashboard-agent-grpc",
        50003: "ray-metrics-export", 50004: "ray-dashboard-agent-http",
    }  # fmt: skip
    kinds = {e.kind for w in found.workloads for one in w.listeners for e in one.label.evidence}
    assert kinds == {"session-file"}


def test_dashboard_agent_by_backlog_and_by_address() -> None:
    """What no file and no flag names: backlog first, address last. comm is cut to 15 bytes."""
    agent = process(12, "", 1, comm="ray::DashboardA")
    by_backlog = [
        tcp(1, HOST, 12, backlog=5),
        tcp(2, HOST, 12, backlog=4096),
        tcp(3, "::", 12, backlog=128),
    ]
    by_address = [tcp(4, "0.0.0.0", 12), tcp(5, "::", 12), tcp(6, HOST, 12)]
    assert list(roles(seen(agent, *by_backlog, *by_address)).values()) == [
        "ray-metrics-export", "ray-dashboard-agent-grpc", "ray-dashboard-agent-http",
    ] * 2  # fmt: skip


def test_raylet_ports_by_what_workers_were_told_and_by_age() -> None:
    """The object manager listens first; workers know the node manager's port."""
    told = seen(raylet(12, 1), worker(13, "ray::A", 12), tcp(7001, "::", 12), tcp(7002, "::", 12))
    assert roles(told) == {7001: "ray-node-manager", 7002: "ray-object-manager"}
    aged = seen(raylet(12, 1), tcp(7001, "::", 12), tcp(7002, "::", 12))
    assert roles(aged) == {7001: "ray-object-manager", 7002: "ray-node-manager"}


def test_scattered_parts_of_one_session_are_one_workload() -> None:
    """``ray start`` without --block leaves its processes to init."""
    found = seen(gcs(11, 1), raylet(12, 1), worker(13, "ray::IDLE", 12))
    assert stacks(found) == [("ray", "head", 11)]
    assert found.workloads[0].pids == {11, 12, 13}


@pytest.mark.parametrize("difference", [{"uid": 7}, {"namespace": 7}])
def test_other_users_and_namespaces_are_other_workloads(difference: dict[str, int]) -> None:
    """Naming another's session does not join it, nor does the same session on another node."""
    assert len(seen(gcs(11, 1), raylet(12, 1, **difference)).workloads) == 2


def test_worker_node_is_a_node() -> None:
    """A node without GCS is no head; with --head on its way it is."""
    joined = process(10, f"{PYTHON} /venv/bin/ray start --address h:6379 --block")
    assert stacks(seen(joined, raylet(12, 10))) == [("ray", "node", 10)]
    starting = process(10, f"{PYTHON} /venv/bin/ray start --head")
    assert stacks(seen(starting)) == [("ray", "head", 10)]


def test_other_ray_commands_are_no_workload() -> None:
    """``ray status`` and a word ``raylet`` on a command line open nothing."""
    for command in (f"{PYTHON} /venv/bin/ray status", "grep raylet", f"{PYTHON} -m ray.scripts"):
        assert not stacks(seen(process(10, command)))


def test_driver_that_starts_its_own_head() -> None:
    """``ray.init()``: gcs_server and raylet are children of the user's script, which serves."""
    driver = process(10, f"{PYTHON} drv.py", threads={"worker.io": 2, "python3": 1})
    found = seen(
        driver,
        gcs(11, 10),
        raylet(12, 10),
        tcp(36000, "::", 10, backlog=4096),
        tcp(8000, "0.0.0.0", 10, backlog=2048),
    )
    assert stacks(found) == [("ray", "drv.py", 10)]
    assert roles(found) == {36000: "ray-worker", 8000: "api"}


def test_driver_is_found_before_its_threads() -> None:
    """Only Python starts a GCS: nothing known of the parent is enough there."""
    driver = process(10, f"{PYTHON} drv.py")
    assert stacks(seen(driver, gcs(11, 10))) == [("ray", "drv.py", 10)]
    other = process(10, f"{PYTHON} supervisord", threads={"python3": 1})
    assert stacks(seen(other, gcs(11, 10))) == [("ray", "head", 11)]


def test_serve_proxy_is_the_api() -> None:
    """Two of: port 8000 or 9000, uvicorn's backlog, a proxy that a raylet started."""
    proxy = worker(13, "ray::ProxyActor.receive", 12)
    found = seen(
        raylet(12, 1),
        proxy,
        tcp(8000, HOST, 13),
        tcp(8500, HOST, 13, backlog=2048),
        tcp(9000, "::", 13, backlog=4096),
        tcp(11000, "::", 13, backlog=4096),
        tcp(12000, HOST, 13, backlog=2048),
        tcp(36000, "::", 13, backlog=4096),
    )
    assert roles(found) == {
        8000: "api",
        8500: "api",
        9000: "api",
        11000: "ray-worker",
        12000: "api",
        36000: "ray-worker",
    }


def test_title_of_a_proxy_without_raylet_opens_nothing() -> None:
    """A title can be faked; the raylet above it must be there."""
    proxy = renamed(13, "ray::ProxyActor", 1)
    found = seen(proxy, tcp(8000, HOST, 13), tcp(8500, HOST, 13, backlog=2048))
    assert not api_ports(found)
    actor = worker(13, "ray::ServeReplica:app:D", 12)
    assert not api_ports(seen(raylet(12, 1), actor, tcp(8000, HOST, 13, backlog=2048)))


def test_engine_workers_inside_actors() -> None:
    """vLLM under Ray: gloo and TCPStore listeners belong to ``ray::`` processes."""
    actor = worker(13, "ray::RayWorkerWrapper", 12, threads={**GLOO_THREADS, **STORE_THREADS})
    found = seen(
        raylet(12, 1),
        actor,
        tcp(40001, HOST, 13, backlog=-1),
        tcp(40002, "::", 13, backlog=-1),
        tcp(40003, HOST, 13, backlog=77),
    )
    assert roles(found) == {40001: "gloo", 40002: "tcpstore", 40003: "unknown"}
