"""Real torchrun over two hosts, through the wall."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guarded import Guarded, running
from tests.support.lab import Lab
from tests.workloads.listening import Listening, listeners_of, try_all
from tests.workloads.starting import RENDEZVOUS_PORT, start_training

PATIENCE = 120.0  # seconds; an import of torch alone takes some on a small machine
FOREVER = ("--steps", "1000000", "--pause", "0.1")


@pytest.fixture
def lab_and_wall(tmp_path: Path) -> Iterator[tuple[Lab, Guarded]]:
    """A lab of its own for each test: a training job takes the whole node."""
    with Lab() as lab:
        yield lab, running(lab, tmp_path / "wall")


def test_training_over_two_hosts_ends_well_when_the_other_is_a_peer(
    lab_and_wall: tuple[Lab, Guarded], tmp_path: Path
) -> None:
    """The wall stands before the job starts, and the job does not notice."""
    lab, wall = lab_and_wall
    master = start_training(lab.node, 0, tmp_path, master=lab.node.ipv4)
    wall.wait_for_rule(RENDEZVOUS_PORT)
    worker = start_training(lab.peer, 1, tmp_path, master=lab.node.ipv4)
    assert [0, 0] == [master.wait(PATIENCE), worker.wait(PATIENCE)], master.output()
    assert "trained" in master.output()
    assert "trained" in worker.output()


def test_training_does_not_start_when_the_other_is_a_stranger(
    lab_and_wall: tuple[Lab, Guarded], tmp_path: Path
) -> None:
    """A host that nobody named never gets into the job: its agent gives up, nobody trains."""
    lab, wall = lab_and_wall
    master = start_training(lab.node, 0, tmp_path, master=lab.node.ipv4)
    wall.wait_for_rule(RENDEZVOUS_PORT)
    worker = start_training(lab.stranger, 1, tmp_path, master=lab.node.ipv4)
    assert 0 != worker.wait(PATIENCE)
    assert "step" not in master.output() + worker.output()


def test_a_running_job_keeps_running_when_the_wall_comes_up_and_strangers_are_shut_out(
    tmp_path: Path,
) -> None:
    """Installing vllmwall on a busy node costs the job nothing."""
    with Lab() as lab:
        start_training(lab.node, 0, tmp_path, master=lab.node.ipv4, arguments=FOREVER)
        worker = start_training(lab.peer, 1, tmp_path, master=lab.node.ipv4, arguments=FOREVER)
        worker.wait_for("step 5 ", PATIENCE)
        listeners = reachable(lab)
        assert {"open"} == gets(lab, "stranger", listeners)
        wall = running(lab, tmp_path / "wall")
        wall.wait_until_guarded(listeners)
        assert {"timeout"} == gets(lab, "stranger", listeners)
        assert {"open"} == gets(lab, "peer", listeners)
        steps = worker.output().count("step ")
        worker.wait_for(f"step {steps + 20} ", PATIENCE)


def reachable(lab: Lab) -> list[Listening]:
    """The node's listeners that are not on loopback: two TCPStores and a gloo at least."""
    found = [one for one in listeners_of(lab.node) if one.targets(lab.node)]
    assert len(found) >= 3
    return found


def gets(lab: Lab, who: str, listeners: list[Listening]) -> set[str]:
    """What this host gets from all of them."""
    host = {"peer": lab.peer, "stranger": lab.stranger}[who]
    return set().union(*try_all(host, lab.node, listeners).values())
