"""The whole answer: pure, quick, and as JSON."""

from __future__ import annotations

from tests.support.answers import as_json
from tests.unit.recognize.node_builder import node, process, renamed, roles, seen, tcp, unix
from vllmwall.api.recognition import recognition_answer
from vllmwall.model import Node, Policy, Role, Stack
from vllmwall.recognize import recognize

VLLM = "/venv/bin/python3 /venv/bin/vllm serve m"


def test_an_empty_node_has_nothing() -> None:
    """No processes, no listeners, no error."""
    assert recognize(Node({}, ())) == seen()
    assert seen().workloads == ()


def test_unclaimed_listeners_keep_their_order() -> None:
    """What belongs to no workload is handed on as it came."""
    listeners = (tcp(3, "::", 7), tcp(1, "::", 7), tcp(2, "::"))
    assert recognize(node(process(7, "/usr/sbin/x"), *listeners)).unclaimed == listeners


def test_remembered_children_stay_closed() -> None:
    """A child of a dead root that shows nothing else is still its stack's."""
    for stack in (Stack.VLLM, Stack.TORCH, Stack.RAY, Stack.SGLANG, Stack.NIXL, Stack.CUSTOM):
        orphan = process(10, "/usr/bin/x", remembered=stack)
        found = seen(orphan, tcp(8000, "0.0.0.0", 10, backlog=2048), unix("/x", 10))
        assert found.workloads[0].stack is stack
        assert "api" not in roles(found).values()


def test_remembered_children_do_not_hide_what_is_above_them() -> None:
    """Memory says less than the process that started it."""
    child = process(11, "/usr/bin/x", 10, remembered=Stack.TORCH)
    found = seen(process(10, VLLM), child, unix("/tmp/x", 11))
    assert roles(found) == {"/tmp/x": "zmq-ipc"}


def test_json_has_the_shape_that_the_issue_asks_for() -> None:
    """proto, addr as the kernel writes it, port, role, audience, confidence and evidence."""
    policy = Policy(audiences={Role.API: ("public",)}, default=("peers", "monitoring"))
    found = seen(
        process(10, VLLM),
        process(20, "/usr/sbin/nginx"),
        renamed(11, "VLLM::EngineCore", 10),
        tcp(8000, "0.0.0.0", 10, backlog=2048),
        tcp(9000, "::ffff:10.0.0.1", 11, backlog=77),
        unix("/tmp/x", 11),
        tcp(80, "::", 20),
    )
    answer = as_json(recognition_answer(found, policy))
    workload = answer["workloads"][0]
    assert (workload["stack"], workload["name"], workload["root_pid"]) == ("vllm", "m", 10)
    assert (workload["pids"], workload["namespace"]) == ([10, 11], 4026531840)
    api, mapped, local = workload["listeners"]
    assert api == {
        "proto": "tcp", "addr": "0.0.0.0", "port": 8000, "namespace": 4026531840, "pids": [10],
        "role": "api", "audience": ["public"], "confidence": 0.99,
        "evidence": [
            {"kind": "default-port", "detail": "port 8000"},
            {"kind": "backlog", "detail": "2048"},
            {"kind": "tree", "detail": "the server process itself"},
        ],
    }  # fmt: skip
    assert (mapped["addr"], mapped["audience"]) == ("::ffff:10.0.0.1", ["peers", "monitoring"])
    assert (local["proto"], local["addr"], local["port"]) == ("unix", "/tmp/x", 0)
    assert [one["addr"] for one in answer["unclaimed"]] == ["::"]


def test_namespace_is_null_where_listeners_are_in_several() -> None:
    """A workload over two namespaces has no single one."""
    found = seen(process(10, VLLM), tcp(1, "::", 10), tcp(2, "::", 10, namespace=7))
    assert recognition_answer(found, Policy({})).workloads[0].namespace is None


def busy_node(processes: int = 2000, listeners: int = 500) -> Node:
    """A node with a few jobs, many of their children, and a crowd of others."""
    parts: list[object] = [process(1, "/sbin/init", 0)]
    for pid in range(2, processes + 1):
        root = 100 * (pid // 100)
        if pid % 100 == 0 and pid <= 1000:
            parts.append(process(pid, f"{VLLM} --port {8000 + pid}", 1))
        elif 0 < pid - root <= 16 and 100 <= pid <= 1016:
            threads = {"ZMQbg/IO/0": 1, "gloo_tcp_loop": 13, "pt_gloo_runloop": 26}
            parts.append(renamed(pid, f"VLLM::Worker_TP{pid - root}", root, threads=threads))
        elif pid % 3:
            parts.append(process(pid, f"/usr/bin/daemon{pid} --flag value -x", 1))
        else:
            parts.append(process(pid, f"/usr/bin/python3 /srv/app{pid}.py --port {pid}", 1))
    owners = [100 * (1 + i % 10) + 1 + i % 16 for i in range(listeners)]
    parts += [tcp(30000 + i, "10.0.0.7", pid, backlog=-1) for i, pid in enumerate(owners)]
    return node(*parts)


def test_a_busy_node_is_counted_right() -> None:
    """2,000 processes and 500 listeners; what it takes is in `make bench ONLY=pass`."""
    recognition = recognize(busy_node())
    assert (10, 500) == (
        len(recognition.workloads),
        sum(len(one.listeners) for one in recognition.workloads),
    )
