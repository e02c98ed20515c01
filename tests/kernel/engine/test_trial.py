"""Nobody is locked out: what is not confirmed takes itself back, and `down` always works."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guarded import PEERS, Guarded, eventually, guarded
from tests.support.lab import Lab
from vllmwall.engine.event_keys import EventKey

PORT = 29500
STRANGERS_TOO = "[peers]\ncidrs = ['192.0.2.0/24', '198.51.100.0/24', '203.0.113.0/24']\n"


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    """A daemon that keeps strangers out of a rank's port."""
    with guarded(lab, tmp_path / "node") as found:
        found.rank().open("tcp", "0.0.0.0", PORT)
        eventually(lambda: stranger(found) == "timeout", "the port is walled", found.log)
        yield found


def stranger(node: Guarded) -> str:
    return node.lab.stranger.connect(node.lab.node.ipv4, PORT)


def peer(node: Guarded) -> str:
    return node.lab.peer.connect(node.lab.node.ipv4, PORT)


def command(node: Guarded, *arguments: str) -> list[str]:
    words = [sys.executable, "-m", "vllmwall", "--socket", str(node.runtime / "control.sock")]
    if arguments[0] in ("up", "down"):
        arguments += ("--only-namespace", node.lab.node.path)
    return node.lab.node.command([*words, *arguments])


def vllmwall(node: Guarded, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(node, *arguments), capture_output=True, text=True, check=False)


def without_peers(node: Guarded) -> None:
    node.configure("")


def test_an_unconfirmed_reload_is_taken_back(node: Guarded) -> None:
    """The configuration that locked a host out goes by itself, and status says so."""
    without_peers(node)
    done = vllmwall(node, "reload", "--confirm", "3s")
    assert "On trial: " in done.stderr
    assert "timeout" == peer(node)
    eventually(lambda: peer(node) == "open", "the reload is taken back", node.log)
    assert "timeout" == stranger(node)
    assert "nobody confirmed it" in json.dumps(node.ask("status"))
    node.configure(PEERS)
    assert "nobody confirmed it" not in json.dumps(node.ask("reload"))


def test_a_confirmed_reload_stays(node: Guarded) -> None:
    """Also when its time is over."""
    without_peers(node)
    vllmwall(node, "reload", "--confirm", "2s")
    done = vllmwall(node, "confirm")
    assert "reload stays" in done.stdout
    eventually(lambda: not rollbacks(node), "the time is over")
    assert "timeout" == peer(node)
    done = vllmwall(node, "confirm")
    assert (1, True) == (done.returncode, "no change is waiting" in done.stderr)


def test_a_refused_reload_leaves_nothing_to_take_back(node: Guarded) -> None:
    """The configuration in force was never left."""
    node.configure("nonsense = 1\n")
    assert 1 == vllmwall(node, "reload", "--confirm", "1s").returncode
    eventually(lambda: not rollbacks(node), "the time is over")
    assert ("timeout", "open") == (stranger(node), peer(node))
    assert [] == node.logged(EventKey.CHANGE_ROLLED_BACK)


def test_the_shell_that_asked_may_die(node: Guarded) -> None:
    """A lost ssh connection takes the shell and its children along, and not the way back."""
    without_peers(node)
    shell = subprocess.Popen(
        ["sh", "-c", '"$@"; sleep 60', "sh", *command(node, "reload", "--confirm", "3s")],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    eventually(lambda: peer(node) == "timeout", "the reload", node.log)
    os.killpg(shell.pid, signal.SIGHUP)
    os.killpg(shell.pid, signal.SIGKILL)
    shell.wait()
    eventually(lambda: peer(node) == "open", "the reload is taken back", node.log)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["dead", "hung"])
def test_the_daemon_may_die_before_the_time_is_over(node: Guarded, number: signal.Signals) -> None:
    """Then what was put up on trial comes down without it."""
    vllmwall(node, "down")
    vllmwall(node, "up", "--confirm", "4s")
    assert "timeout" == stranger(node)
    node.signal(number)
    assert "timeout" == stranger(node)
    eventually(lambda: stranger(node) == "open", "the walls come down", node.log)


def test_down_works_where_the_daemon_hangs(node: Guarded) -> None:
    """Only its end frees the table that it owns."""
    node.signal(signal.SIGSTOP)
    done = vllmwall(node, "down")
    assert "it does not answer" in done.stderr
    assert ("open", 0) == (stranger(node), done.returncode)
    assert node.process is not None
    assert -signal.SIGKILL == node.process.wait(timeout=10)


def rollbacks(node: Guarded) -> list[str]:
    """The processes that wait to take something back on this node."""
    found = subprocess.run(
        ["pgrep", "-f", f"{node.runtime}.* rollback"], check=False, capture_output=True
    )
    return found.stdout.decode().split()
