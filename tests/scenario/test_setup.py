"""`vllmwall setup` on a node where a job runs: what it finds, and what it makes of the answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.guarded import Guarded
from tests.support.lab import Host, Lab
from tests.support.severing import dialled, lives

STORE, HERE = 29500, "10.0.0.1"


@pytest.fixture
def worker(lab: Lab) -> Host:
    """The other node of the job, in a private network."""
    lab.node.add_address(HERE)
    return lab.host("worker", "10.0.0.2")


@pytest.fixture
def node(lab: Lab, worker: Host, tmp_path: Path) -> Iterator[Guarded]:
    """A job that ran before the daemon, a connection of its worker, and no configuration."""
    found = Guarded(lab, tmp_path / "node", arguments=("--state-dir", str(tmp_path / "state")))
    found.configure("")
    found.rank().echo("0.0.0.0", STORE)
    with ExitStack() as held:
        running = dialled(held, worker, HERE, STORE)
        found.start()
        found.wait_for_rule(STORE)
        yield found
        assert lives(running)
    found.stop()


def answered(node: Guarded, *arguments: str) -> dict[str, Any]:
    """The answer of a setup that went well."""
    done = node.command("setup", *arguments, "--json")
    assert (0, "") == (done.returncode, done.stderr), done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def saved(node: Guarded) -> list[str]:
    """The drop-ins that there are."""
    return sorted(path.name for path in (node.config.parent / "conf.d").glob("*"))


def test_a_look_changes_nothing(node: Guarded) -> None:
    """It names the job, the adopted host and the proposal."""
    found = answered(node, "--look")
    assert found["workloads"][0].startswith("torch (pid ")
    assert (["10.0.0.2"], ["10.0.0.2/32"]) == (found["adopted"], found["proposed"])
    assert ([], 1, [], "enforce") == (found["open"], found["closed"], found["peers"], found["mode"])
    assert "vllmwall setup" == found["next"]
    shown = node.command("setup", "--look").stdout.splitlines()
    assert ["workloads", "open", "adopted", "closed"] == [line.split()[0] for line in shown[:4]]
    assert "10.0.0.2, until their jobs end" in shown[2]
    assert [] == saved(node)


def test_scripts_take_the_proposal_or_bring_their_own(node: Guarded, worker: Host) -> None:
    """For Ansible and images: no question, one object."""
    assert ["10.0.0.2/32"] == answered(node, "--yes")["peers"]
    assert ["90-peers-saved.toml"] == saved(node)
    found = answered(node, "--peer", "10.9.0.0/24")
    assert ["10.0.0.2/32", "10.9.0.0/24"] == found["peers"]
    assert "vllmwall status" == found["next"]
    bad = node.command("setup", "--peer", "10.9.0.0/33", "--json")
    assert bad.returncode != 0
    assert "10.9.0.0/33" in json.loads(bad.stdout)["error"]["message"]
    assert "open" == worker.connect(HERE, STORE)


def test_audit_mode_is_set_and_taken_back(node: Guarded) -> None:
    """By packets of a stranger."""
    assert "timeout" == node.lab.stranger.connect(node.lab.node.ipv4, STORE)
    assert "audit" == answered(node, "--audit", "--peer", "10.0.0.2")["mode"]
    assert "open" == node.lab.stranger.connect(node.lab.node.ipv4, STORE)
    assert "vllmwall setup --enforce" == answered(node, "--look")["next"]
    assert "enforce" == answered(node, "--enforce")["mode"]
    assert "timeout" == node.lab.stranger.connect(node.lab.node.ipv4, STORE)
    assert ["90-peers-saved.toml"] == saved(node)


def test_a_person_is_asked_and_may_say_no(node: Guarded) -> None:
    """No peers, audit mode, no packets."""
    done = subprocess.run(
        [sys.executable, "-m", "vllmwall", "setup"],
        env={**os.environ, "VLLMWALL_SOCKET": str(node.runtime / "control.sock")},
        input="-\nn\nn\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert 0 == done.returncode, done.stderr
    assert "Networks of your other nodes" in done.stdout
    assert "[10.0.0.2/32]" in done.stdout
    assert ["92-setup.toml"] == saved(node)
    assert "audit" == answered(node, "--look")["mode"]
