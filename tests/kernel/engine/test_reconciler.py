"""One pass at a time, in this process: what happens when the kernel or the node refuses."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.answers import status_json
from tests.support.building import REPOSITORY
from tests.support.guarded import PEERS, Guarded, Program
from tests.support.lab import Lab
from tests.support.reconciling import Refusing, kept
from tests.support.waiting import eventually
from vllmwall.api.status import is_safe
from vllmwall.enforce.apply import Change
from vllmwall.engine.event_handlers import close_port
from vllmwall.engine.reconciler import Reconciler
from vllmwall.observe import owners
from vllmwall.observe.events import ListenEvent
from vllmwall.observe.namespaces import Namespaces


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Guarded:
    return Guarded(lab, tmp_path)


@pytest.fixture
def rank(node: Guarded) -> Program:
    return node.rank()


@pytest.fixture
def keeper(node: Guarded) -> Iterator[Reconciler]:
    """A keeper of the lab's node."""
    with kept(node, Refusing()) as found:
        yield found


def reach(node: Guarded, port: int) -> str:
    return node.lab.stranger.connect(node.lab.node.ipv4, port)


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def refuse(keeper: Reconciler, times: int) -> None:
    assert isinstance(keeper.backend, Refusing)
    keeper.backend.refusals = times


def test_a_refused_change_leaves_the_old_wall_and_is_logged(
    node: Guarded, rank: Program, keeper: Reconciler
) -> None:
    """Three refusals in a row: the old wall stays, log and status report it, the next repairs."""
    rank.open("tcp", "::", 29500)
    keeper.full_pass()
    rank.open("tcp", "::", 29501)
    failures: list[str] = []
    keeper.walls.on_failure = lambda namespace, why: failures.append(why)
    refuse(keeper, 3)
    keeper.full_pass()
    assert ("timeout", "open") == (reach(node, 29500), reach(node, 29501))
    assert ["Cannot allocate memory"] == [why.rpartition(": ")[2] for why in failures]
    status = keeper.status(0.0)
    assert is_safe(status) is False
    assert any("Cannot allocate memory" in problem for problem in status_json(status)["problems"])
    keeper.full_pass()
    assert "timeout" == reach(node, 29501)
    assert is_safe(keeper.status(0.0)) is True
    assert [] == status_json(keeper.status(0.0))["problems"]


def test_the_last_try_rebuilds_the_whole_wall(
    node: Guarded, rank: Program, keeper: Reconciler
) -> None:
    """A difference is only as good as our memory of the active wall."""
    rank.open("tcp", "::", 29500)
    keeper.full_pass()
    assert isinstance(keeper.backend, Refusing)
    keeper.backend.whole_replacements = 0
    rank.open("tcp", "::", 29501)
    refuse(keeper, 2)
    keeper.full_pass()
    assert 1 == keeper.backend.whole_replacements
    assert "timeout" == reach(node, 29501)


def test_a_node_that_cannot_be_read_changes_no_wall(
    node: Guarded, rank: Program, keeper: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no descriptors left every listener would seem ownerless and every wall unneeded."""
    rank.open("tcp", "::", 29500)
    keeper.full_pass()

    def no_descriptors(folder: str) -> list[str]:
        raise OSError(24, "Too many open files", folder)

    with monkeypatch.context() as starved:
        starved.setattr(owners.os, "listdir", no_descriptors)
        with pytest.raises(OSError, match="Too many open files"):
            keeper.full_pass()
    assert "timeout" == reach(node, 29500)
    assert is_safe(keeper.status(0.0)) is True


def test_a_namespace_that_cannot_be_read_keeps_its_wall_and_status_says_unknown(
    node: Guarded, rank: Program, keeper: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No listener seen is not the same as no listener there."""
    rank.open("tcp", "::", 29500)
    keeper.full_pass()

    def refuse_to_read(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    with monkeypatch.context() as closed:
        closed.setattr(Namespaces, "_read", refuse_to_read)
        keeper.full_pass()
        assert "timeout" == reach(node, 29500)
        status = status_json(keeper.status(0.0))
    assert status["safe"] is None
    assert any("not permitted" in problem for problem in status["problems"])
    keeper.full_pass()
    assert is_safe(keeper.status(0.0)) is True


def test_status_reads_the_kernel_and_not_its_memory(
    node: Guarded, rank: Program, keeper: Reconciler
) -> None:
    """Somebody took our table away a moment ago."""
    rank.open("tcp", "::", 29500)
    keeper.full_pass()
    assert is_safe(keeper.status(0.0)) is True
    node.lab.node.run(["nft", "delete", "table", "inet", "vllmwall"])
    status = status_json(keeper.status(0.0))
    assert (status["safe"], status["namespaces"][0]["wall"]) == (False, "missing")
    assert {"missing"} == {one["rule"] for one in status["workloads"][0]["listeners"]}


def test_a_rule_that_somebody_added_is_named_and_taken_out(
    node: Guarded, rank: Program, keeper: Reconciler
) -> None:
    """One foreign rule in our table lets everybody in; status says which."""
    rank.open("tcp", "::", 29500)
    keeper.full_pass()
    node.lab.node.run(["nft", "insert", "rule", "inet", "vllmwall", "input", "accept"])
    assert "open" == reach(node, 29500)
    status = status_json(keeper.status(0.0))
    assert (status["safe"], status["namespaces"][0]["wall"]) == (False, "differs")
    assert any("accept" in problem for problem in status["problems"])
    keeper.full_pass()
    assert "timeout" == reach(node, 29500)
    assert is_safe(keeper.status(0.0)) is True


def test_a_pass_without_news_changes_nothing(rank: Program, keeper: Reconciler) -> None:
    """No transaction, no log line, no new generation of the ruleset."""
    rank.open("tcp", "::", 29500)
    keeper.full_pass()
    changes: list[Change] = []
    keeper.walls.on_change = changes.append
    keeper.full_pass()
    keeper.quick_pass()
    assert [] == changes


def test_a_namespace_that_ended_is_let_go_of(lab: Lab, keeper: Reconciler, rank: Program) -> None:
    """A container that stopped: no descriptor of ours keeps its network alive."""
    rank.open("tcp", "::", 29500)
    keeper.full_pass()
    held = open_descriptors()
    rank.kill()
    keeper.full_pass()
    assert held > open_descriptors()
    assert status_json(keeper.status(0.0))["workloads"] == []


def test_a_child_that_outlives_its_root_stays_walled(node: Guarded, keeper: Reconciler) -> None:
    """A killed `vllm serve` leaves its engine listening under pid 1."""
    server = node.server(8000)
    server.open("tcp", "0.0.0.0", 8001)
    child = server.fork()
    keeper.full_pass()
    assert "timeout" == reach(node, 8001)
    server.kill_root()
    try:
        keeper.full_pass()
        keeper.full_pass()
        assert "timeout" == reach(node, 8001)
    finally:
        os.kill(child, 9)


def test_namespaces_keep_their_names_after_down(rank: Program, keeper: Reconciler) -> None:
    """Each workload's namespace is in the status, without a wall; a wall left there would show."""
    rank.open("tcp", "::", 29500)
    keeper.full_pass()
    up = {space["inode"]: space["name"] for space in status_json(keeper.status(0.0))["namespaces"]}
    keeper.take_down()
    answer = status_json(keeper.status(0.0))
    [workload] = answer["workloads"]
    assert up == {space["inode"]: space["name"] for space in answer["namespaces"]}
    assert {one["namespace"] for one in workload["listeners"]} <= up.keys()
    assert ["none"] == [space["wall"] for space in answer["namespaces"]]
    assert {} == keeper.walls.spaces


def test_an_event_closes_no_failsafe_port(node: Guarded, lab: Lab) -> None:
    """Not even for the moment until the pass: ssh may be what listens there."""
    node.configure(f"{PEERS}[host]\nfailsafe = ['tcp/2222']\n")
    rank = node.rank()
    rank.open("tcp", "0.0.0.0", 29400)
    with kept(node) as keeper:
        keeper.full_pass()
        pid = min(keeper.members)
        for port in (2222, 29500):
            rank.open("tcp", "0.0.0.0", port)
        event = ListenEvent(pid, 2222, 128, ip_address("0.0.0.0"))
        assert not close_port(keeper, event, pid)
        assert "open" == reach(node, 2222)
        assert close_port(keeper, replace(event, port=29500), pid)
        assert "timeout" == reach(node, 29500)


def test_an_event_of_another_program_closes_nothing(node: Guarded, rank: Program) -> None:
    """Not even for the moment until the pass: it is no workload's."""
    rank.open("tcp", "0.0.0.0", 29500)
    server = node.lab.node.popen([sys.executable, f"{REPOSITORY}/tests/system/server.py", "8080"])
    eventually(lambda: reach(node, 8080) == "open", "it serves")
    with kept(node) as keeper:
        keeper.full_pass()
        event = ListenEvent(server.pid, 8080, 128, ip_address("0.0.0.0"))
        assert keeper.observer.process(server.pid) is not None
        assert not close_port(keeper, event, server.pid)
        assert ("open", "timeout") == (reach(node, 8080), reach(node, 29500))
