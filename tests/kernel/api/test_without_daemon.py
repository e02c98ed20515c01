"""The walls put up and taken down by hand, where no daemon runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.guarded import Guarded
from tests.support.lab import Lab


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Guarded:
    """A node with a workload and no daemon."""
    found = Guarded(lab, tmp_path)
    found.rank().open("tcp", "::", 29500)
    return found


def vllmwall(node: Guarded, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vllmwall", "--socket", str(node.runtime / "control.sock")]
    command += [*arguments, "--only-namespace", node.lab.node.path]
    return subprocess.run(
        node.lab.node.command(command), capture_output=True, text=True, check=False
    )


def test_up_guards_once_and_down_takes_all_away(node: Guarded) -> None:
    """The emergency exit needs no daemon."""
    node_ip = node.lab.node.ipv4
    done = vllmwall(node, "up", "--config", str(node.config), "--json")
    assert done.returncode == 0, done.stderr
    assert "no daemon runs" in json.loads(done.stdout)["problems"][0]
    assert "timeout" == node.lab.stranger.connect(node_ip, 29500)
    assert "open" == node.lab.peer.connect(node_ip, 29500)
    done = vllmwall(node, "down")
    assert "Removed the wall in 1 network namespace." in done.stdout
    assert "open" == node.lab.stranger.connect(node_ip, 29500)
    assert "No wall was active." in vllmwall(node, "down").stdout


def test_up_with_a_broken_configuration_changes_nothing(node: Guarded) -> None:
    """What stands stays, and the words say why."""
    vllmwall(node, "up", "--config", str(node.config))
    node.configure("nonsense = 1\n")
    done = vllmwall(node, "up", "--config", str(node.config))
    assert (done.returncode, "nonsense" in done.stderr) == (2, True)
    assert "timeout" == node.lab.stranger.connect(node.lab.node.ipv4, 29500)


def test_down_works_with_a_broken_configuration(node: Guarded) -> None:
    """Nobody is locked out by a typing error."""
    vllmwall(node, "up", "--config", str(node.config))
    node.configure("nonsense = 1\n")
    assert vllmwall(node, "down").returncode == 0
    assert "open" == node.lab.stranger.connect(node.lab.node.ipv4, 29500)


def test_status_without_a_daemon_says_whether_a_wall_stands(node: Guarded) -> None:
    """What can be said for sure, and no more."""
    done = status(node)
    assert (done.returncode, "no wall is active" in done.stderr) == (3, True)
    vllmwall(node, "up", "--config", str(node.config))
    done = status(node)
    assert (done.returncode, "A wall over 1 port is still active" in done.stderr) == (3, True)


def test_plan_without_a_daemon_changes_nothing(node: Guarded) -> None:
    """A look before the first `up`."""
    done = vllmwall(node, "plan", "--config", str(node.config), "--json")
    [space] = json.loads(done.stdout)["namespaces"]
    assert ("create", 2) == (space["action"], len(space["entries"]))
    assert "open" == node.lab.stranger.connect(node.lab.node.ipv4, 29500)


def status(node: Guarded) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vllmwall", "--socket", str(node.runtime / "control.sock")]
    return subprocess.run(
        node.lab.node.command([*command, "status"]), capture_output=True, text=True, check=False
    )


def test_down_leaves_no_trace_of_a_killed_daemon(node: Guarded) -> None:
    """Its instance recorded every listen of the machine for nobody."""
    node.start()
    assert node.trace_instance.exists()
    node.stop(signal.SIGKILL)
    assert node.trace_instance.exists()
    vllmwall(node, "down")
    assert not node.trace_instance.exists()
