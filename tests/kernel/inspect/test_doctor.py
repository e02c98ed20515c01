"""The doctor, on nodes that lack something."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from tests.kernel.observe.test_other_firewalls import DOCKER, NFTABLES_CONF, Place, _firewalld
from tests.support.guarded import PEERS, Guarded, eventually, guarded
from tests.support.lab import Lab
from vllmwall.inspect.doctor import Examination

API = 8000
WITHOUT_EVENTS = "umount /sys/kernel/tracing; umount /sys/kernel/debug/tracing; true"
WITHOUT_CGROUPS = "umount -a -t cgroup2; umount /sys/fs/cgroup/unified; true"


def doctor(node: Guarded, within: Sequence[str] = (), status: int = 0) -> dict[str, list[str]]:
    """The doctor's answer: for each subject its state, what was seen, the remedy."""
    words = [sys.executable, "-m", "vllmwall", "--socket", str(node.runtime / "control.sock")]
    words += ["doctor", "--json", "--config", str(node.config)]
    command = [*within, *words] if within else node.lab.node.command(words)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    answer: Examination = TypeAdapter(Examination).validate_json(done.stdout)
    assert answer.healthy is (status == 0)
    return {one.subject: [one.state, one.seen, one.remedy] for one in answer.diagnoses}


@pytest.fixture
def sick(lab: Lab, tmp_path: Path) -> Guarded:
    """A node without a daemon."""
    return Guarded(lab, tmp_path)


def test_a_guarded_node_is_healthy(lab: Lab, tmp_path: Path) -> None:
    """With a daemon and every feature of this kernel, whatever doctor itself has mounted."""
    with guarded(lab, tmp_path) as node:
        found = doctor(node)
        assert "ok" == found["daemon"][0]
        for subject in ("nftables", "guards", "events", "reset of connections", "peers"):
            assert found.get(subject, ["ok"])[0] == "ok", found[subject]
        entry = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f'{WITHOUT_EVENTS} >/dev/null 2>&1; exec "$@"',
            "sh",
        ]
        events = doctor(node, node.lab.node.command(entry))["events"]
        assert ["ok", "the daemon reads tracefs: it sees a listener when it opens"] == events[:2]
        node.configure("")
        node.ask("reload")
        assert "warn" == doctor(node)["peers"][0]


def test_a_daemon_that_does_not_run_is_a_failure(sick: Guarded) -> None:
    """And the exit status says so."""
    assert "fail" == doctor(sick, status=5)["daemon"][0]


def test_a_broken_configuration_is_quoted(sick: Guarded) -> None:
    """With the file and the key, as `check` has it."""
    sick.configure(f"nonsense = 1\n{PEERS}")
    state, seen, remedy = doctor(sick, status=5)["configuration"]
    assert (state, "nonsense" in seen, "vllmwall check" in remedy) == ("fail", True, True)


@pytest.mark.parametrize(
    ("without", "subjects"),
    [(WITHOUT_EVENTS, ["events"]), (WITHOUT_CGROUPS, ["cgroup v2", "guards"])],
    ids=["tracefs", "cgroup v2"],
)
def test_what_the_kernel_does_not_give_is_named(
    sick: Guarded, without: str, subjects: list[str]
) -> None:
    """With what is lost, and a remedy."""
    entry = ["unshare", "--mount", "sh", "-c", f'{without} >/dev/null 2>&1; exec "$@"', "sh"]
    found = doctor(sick, sick.lab.node.command(entry), status=5)
    for subject in subjects:
        state, seen, remedy = found[subject]
        assert (state, bool(seen), bool(remedy)) == ("warn", True, True)


def test_another_firewalls_policy_is_named(sick: Guarded) -> None:
    """A packet that we let in is dropped by a later table."""
    sick.lab.node.run(["nft", "-f", "-"], stdin=NFTABLES_CONF.split("flush ruleset")[1])
    found = doctor(sick, status=5)
    assert "inet filter input drops" in found["another firewall's policy"][1]
    assert "inet filter" in found["tables at the input hook"][1]


def test_our_own_table_is_no_other_firewall(lab: Lab, tmp_path: Path) -> None:
    """Nobody is told to open the API port in the wall."""
    with guarded(lab, tmp_path) as node:
        node.rank().open("tcp", "::", 29500)
        eventually(lambda: lab.stranger.connect(lab.node.ipv4, 29500) == "timeout", "walled")
        found = doctor(node)
        assert "another firewall's policy" not in found
        assert "vllmwall" not in json.dumps(found.get("tables at the input hook"))


@pytest.mark.parametrize("program", ["ufw", "firewalld"])
def test_the_api_that_another_firewall_closes_is_named(
    lab: Lab, tmp_path: Path, program: str
) -> None:
    """With the command that opens it there; after it, nothing is left to say."""
    for needed in (program, "dbus-daemon"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed: tests/setup/apt")
    place = Place(lab.node)
    if program == "ufw":
        place.run(["ufw", "--force", "enable"])
    else:
        _firewalld(place)
    with guarded(lab, tmp_path) as node:
        server = node.server(API)
        server.open("tcp", "0.0.0.0", API)
        eventually(lambda: f"API port {API}" in doctor(node, place.command([])), "it is named")
        remedy = doctor(node, place.command([]))[f"API port {API}"][2]
        with pytest.raises(OSError, match=r"timed out|No route"):
            lab.stranger.dial(lab.node.ipv4, API)
        place.run(["sh", "-ec", remedy])
        assert f"API port {API}" not in doctor(node, place.command([]))
        assert "open" == lab.stranger.connect(lab.node.ipv4, API)


def test_a_port_that_docker_publishes_is_named(sick: Guarded) -> None:
    """It goes past the input hook of the host, and to which wall it comes then."""
    place = Place(sick.lab.node)
    place.run(["iptables-restore"], DOCKER)
    found = doctor(sick, place.command([]), status=5)
    assert "172.17.0.2:8000" in found["published port 8000"][1]
