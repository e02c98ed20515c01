"""Real NCCL without a GPU: the bootstrap root's listener, whoever was there first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.ending import end_group
from tests.support.guarded import Guarded
from tests.support.lab import Lab
from tests.support.waiting import eventually
from tests.workloads.listening import Listening, listeners_of, try_all
from tests.workloads.starting import NCCL
from vllmwall.observe.snapshot import load
from vllmwall.recognize import recognize

pytestmark = pytest.mark.nccl
ROOT = Path(__file__).parents[1] / "workloads/nccl_root.py"


def start_root(lab: Lab, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A process of which NCCL has opened a root; the lab ends it."""
    process = subprocess.Popen(
        lab.node.command([sys.executable, str(ROOT), str(NCCL)]),
        env={**os.environ, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    lab.node._stack.callback(end_group, process)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def root_of(lab: Lab) -> Listening:
    """The only listener of the node."""
    [found] = listeners_of(lab.node)
    return found


def is_closed_to_strangers(lab: Lab, root: Listening) -> bool:
    return try_all(lab.stranger, lab.node, [root])[root] == {"timeout"}


@pytest.mark.parametrize("order", ["daemon first", "root first", "daemon killed and started"])
def test_ranks_on_peers_reach_the_root_and_strangers_do_not(order: str, tmp_path: Path) -> None:
    """One interface's address, a random port, no name of a thread, and no launcher."""
    with Lab() as lab:
        wall = Guarded(lab, tmp_path / "wall")
        if order != "root first":
            wall.start()
        start_root(lab)
        root = root_of(lab)
        assert root.address == lab.node.ipv4
        if order == "root first":
            assert try_all(lab.stranger, lab.node, [root])[root] == {"open"}
            wall.start()
        if order == "daemon killed and started":
            wall.wait_for_rule(root.port)
            wall.stop(signal.SIGKILL)
            wall.start()
        wall.wait_for_rule(root.port)
        assert is_closed_to_strangers(lab, root)
        assert try_all(lab.peer, lab.node, [root])[root] == {"open"}
        [shown] = wall.listeners()
        assert shown["role"] == "nccl"
        assert shown["audience"] == ["peers"]


def test_a_root_on_the_interface_that_it_was_told_is_one_too(tmp_path: Path) -> None:
    """With `NCCL_COMM_ID` no root is opened before a rank starts, which needs a GPU."""
    with Lab() as lab:
        start_root(lab, {"NCCL_SOCKET_IFNAME": "=lo"})
        start_root(lab, {"NCCL_SOCKET_IFNAME": "=eth0"})
        wall = Guarded(lab, tmp_path / "wall")
        wall.start()
        [root] = [one for one in listeners_of(lab.node) if one.targets(lab.node)]
        wall.wait_for_rule(root.port)
        assert is_closed_to_strangers(lab, root)
        assert try_all(lab.peer, lab.node, [root])[root] == {"open"}


def test_the_snapshot_of_a_root_is_a_recording(tmp_path: Path) -> None:
    """As tests/recordings/nccl-root.json was made; with NCCL_RECORD=FILE it is made again."""
    with Lab() as lab:
        wall = Guarded(lab, tmp_path / "wall")
        wall.start()
        start_root(lab)
        root = root_of(lab)
        wall.wait_for_rule(root.port)
        eventually(lambda: wall.listeners()[0]["role"] == "nccl", "it is known")
        path = tmp_path / "snapshot.json"
        done = wall.command("snapshot", "--workload", str(root.pid), "-o", str(path))
        assert done.returncode == 0, done.stderr
    content = json.loads(path.read_text())
    [listener] = content["listeners"]
    assert listener["backlog"] == 16384
    [workload] = recognize(load(path)).workloads
    assert [one.label.role.value for one in workload.listeners] == ["nccl"]
    if target := os.environ.get("NCCL_RECORD"):
        for process in content["processes"]:
            process |= {"cgroup": "/", "remembered": None}
        content["roles"] = {str(listener["inode"]): "nccl"}
        Path(target).write_text(json.dumps(content, indent=1) + "\n")
