"""Containers that start again: closed from their first instruction, whatever their path."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cgroups import cgroup, inside, remove
from tests.support.guarded import Guarded, guarded
from tests.support.guarding import PORT, asleep, number_of, numbers, path_of, wait_for_guard
from tests.support.hammer import hammering
from tests.support.lab import Lab
from tests.support.reconciling import kept
from vllmwall.engine.event_handlers import follow
from vllmwall.observe.events import CgroupEvent

ID = "ab" * 32
ROUNDS = 80
# Listens as soon as it runs, and ends when nobody has connected for a tenth of a second.
SUDDEN = """#!/usr/bin/python3 -S
import socket
one = socket.socket()
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
one.bind(("0.0.0.0", 29500))
one.listen(128)
one.settimeout(0.1)
try:
    while True:
        one.accept()[0].close()
except OSError:
    pass
"""


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(lab, tmp_path) as found:
        script = tmp_path / "vllm"
        script.write_text(SUDDEN)
        script.chmod(0o755)
        yield found


def start(node: Guarded, place: Path) -> subprocess.Popen[str]:
    """Start the container's program in its new cgroup."""
    place.mkdir()
    argv = [str(node.folder / "vllm"), "serve", "tiny"]
    return node.lab.node.popen(inside(place, argv))


@pytest.mark.parametrize(
    "name",
    [f"docker-{ID}.scope", f"libpod-{ID}.scope", f"cri-containerd-{ID}.scope", ID],
    ids=["docker", "libpod", "containerd", "cgroupfs"],
)
def test_no_start_is_the_first_one(node: Guarded, name: str) -> None:
    """Guarded while the daemon sleeps: from the second start on, nothing has to be read first."""
    with cgroup(f"/vwagain{node.lab.node.path.rpartition('/')[2]}/pod") as above:
        place = above / name
        place.mkdir()
        job = node.rank(place)
        job.open("tcp", "0.0.0.0", PORT)
        wait_for_guard(node, place)
        job.kill()
        remove(place)
        node.ask("reload")
        place.mkdir()
        wait_for_guard(node, place)  # nobody is in it
        again = node.bystander(place)
        with asleep(node):
            again.open("tcp", "0.0.0.0", PORT)
            assert "timeout" == node.lab.stranger.connect(node.lab.node.ipv4, PORT)
            assert "open" == node.lab.peer.connect(node.lab.node.ipv4, PORT)


@pytest.mark.parametrize("name", ["vwjob.service", f"docker-{ID}.scope"])
def test_the_event_of_its_cgroup_is_enough(lab: Lab, tmp_path: Path, name: str) -> None:
    """No pass comes between that event and the job's first packet."""
    node = Guarded(lab, tmp_path)
    with cgroup(f"/vwagain{lab.node.path.rpartition('/')[2]}") as above, kept(node) as keeper:
        place = above / name
        place.mkdir()
        job = node.rank(place)
        keeper.full_pass()
        assert {number_of(place)} == numbers(node)
        job.kill()
        remove(place)
        keeper.full_pass()
        place.mkdir()
        assert set() == numbers(node)
        follow(keeper, [CgroupEvent(path_of(place), number_of(place))])
        assert {number_of(place)} == numbers(node)
        node.bystander(place).open("tcp", "0.0.0.0", PORT)
        assert "timeout" == lab.stranger.connect(lab.node.ipv4, PORT)


def test_eighty_restarts_under_a_hammer(node: Guarded) -> None:
    """Not one of the stranger's connections is answered, in no round."""
    with cgroup(f"/vwagain{node.lab.node.path.rpartition('/')[2]}/docker") as above:
        place = above / f"docker-{ID}.scope"
        job = start(node, place)
        wait_for_guard(node, place)
        job.wait()
        remove(place)
        with hammering(node.lab.stranger, "tcp", (node.lab.node.ipv4, PORT)) as attempts:
            for _ in range(ROUNDS):
                start(node, place).wait()
                remove(place)
        assert attempts.tried > 20 * ROUNDS
        assert 0 == attempts.opened
