"""Parts of a node: nothing else is in them, and recognition of them gives the same."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from tests.unit.recognize.node_builder import NAMESPACE, node, process, tcp
from vllmwall.model import Label, Listener, Node, Workload
from vllmwall.observe.parts import of_namespace, of_process, of_workloads
from vllmwall.observe.snapshot import dump, read
from vllmwall.recognize import recognize

FOLDER = Path(__file__).parents[2] / "recordings"
PATHS = sorted(FOLDER.rglob("*.json"))
GENERAL = {"etcd", "nats-server"}  # a workload's only beside its stack, which is not in the part


@cache
def recording(path: Path) -> Node:
    """The node of a recording."""
    content = json.loads(path.read_text())
    return read(json.dumps({k: v for k, v in content.items() if k not in ("expected", "roles")}))


def labels(workload: Workload) -> dict[tuple[str, int], Label]:
    """The labels of its listeners."""
    return {(one.listener.where, one.listener.inode): one.label for one in workload.listeners}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_workload_is_recognized_by_its_part_alone(path: Path) -> None:
    """Recordings are redacted, as what is attached to a report."""
    whole = recording(path)
    for workload in recognize(whole).workloads:
        part = of_workloads(whole, [workload])
        found = [(one.id, one.stack, labels(one)) for one in recognize(part).workloads]
        same = (workload.id, workload.stack, labels(workload))
        assert found == ([] if workload.name in GENERAL else [same])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_namespace_is_recognized_by_its_part_alone(path: Path) -> None:
    """Every workload that is in it as a whole."""
    whole = recording(path)
    spaces = {one.namespace for one in whole.processes.values()}
    for inode in spaces:
        part = {one.id: one for one in recognize(of_namespace(whole, inode)).workloads}
        for workload in recognize(whole).workloads:
            if {whole.processes[pid].namespace for pid in workload.pids} == {inode}:
                assert labels(part[workload.id]) == labels(workload)


def two_jobs(**other: object) -> Node:
    """Two servers of two users, a store, and sshd."""
    return node(
        process(1, "/sbin/init", ppid=0),
        process(10, "/venv/bin/vllm serve a --port 8000", cgroup="/a.service", uid=1),
        process(20, "/venv/bin/vllm serve b --port 8001", cgroup="/secret.service", **other),
        process(30, "/usr/sbin/sshd -D", cgroup="/ssh.service", **other),
        tcp(8000, "192.0.2.1", 10, backlog=2048, queue_limit=2048),
        tcp(8001, "192.0.2.77", 20, backlog=2048, queue_limit=2048, **other),
        tcp(22, "192.0.2.88", 30, queue_limit=4096, **other),
    )


@pytest.mark.parametrize("by", ["workload", "process", "namespace"])
def test_nothing_else_of_the_node_is_in_a_part(by: str) -> None:
    """No process, listener, cgroup or address of others."""
    whole = two_jobs(namespace=NAMESPACE + 1)
    if by == "workload":
        part = of_workloads(whole, [recognize(whole).workloads[0]])
    elif by == "process":
        part = of_process(whole, 10)
    else:
        part = of_namespace(whole, NAMESPACE)
    text = json.dumps(dump(part, host_facts={}))
    assert "/a.service" in text
    assert "192.0.2.1" in text
    assert not [one for one in ("secret", "ssh", "192.0.2.77", "192.0.2.88") if one in text]
    assert part.processes.keys() - {1} == {10}


def test_the_longest_queue_of_the_namespace_stays_known_and_nothing_else_of_its_listener() -> None:
    """Roles depend on it."""
    part = of_process(two_jobs(), 10)
    [own, other] = part.listeners
    assert (own.port, other.port, str(other.address), other.pids) == (8000, 0, "127.0.0.1", (0,))
    assert other.queue_limit == 4096


def test_a_process_has_its_descendants_and_the_ancestors_of_its_user_and_cgroup() -> None:
    """What started it tells what it is."""
    part = of_process(
        node(
            process(1, "/sbin/init", ppid=0),
            process(2, "/bin/bash", cgroup="/user.slice"),
            process(3, "/opt/launch", ppid=2, cgroup="/job.scope"),
            process(4, "/opt/other", ppid=3, cgroup="/job.scope"),
            process(5, "/opt/serve", ppid=3, cgroup="/job.scope"),
            process(6, "/opt/worker", ppid=5, cgroup="/job.scope/inner"),
            tcp(9000, "0.0.0.0", 6),
            tcp(9001, "0.0.0.0", 4),
        ),
        5,
    )
    assert part.processes.keys() == {3, 5, 6}
    assert [one.port for one in part.listeners if isinstance(one, Listener)] == [9000]


def test_holders_outside_the_workload_stay_and_init_does_not() -> None:
    """They decide whose a socket is."""
    held = tcp(8001, "0.0.0.0", 1, 10, 30)
    whole = Node({**two_jobs().processes}, (*two_jobs().listeners, held))
    workload = next(one for one in recognize(whole).workloads if 10 in one.pids)
    part = of_workloads(whole, [workload])
    assert part.processes.keys() == {10, 30}
    assert (10, 30) == next(one.pids for one in part.listeners if one.port == 8001)
