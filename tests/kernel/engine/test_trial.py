"""No operator is locked out: an unconfirmed change is rolled back, and `down` always works."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

from tests.support.guarded import PATIENCE, PEERS, Guarded, eventually, guarded
from tests.support.lab import Lab
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.trial import note

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
    assert "it was not confirmed in time" in json.dumps(node.ask("status"))
    node.configure(PEERS)
    assert "nobody confirmed it" not in json.dumps(node.ask("reload"))


def test_a_confirmed_reload_stays(node: Guarded) -> None:
    """Also when its time is over."""
    without_peers(node)
    vllmwall(node, "reload", "--confirm", "60s")
    done = vllmwall(node, "confirm")
    assert "reload stays" in done.stdout
    end_the_time(node)
    assert "timeout" == peer(node)
    done = vllmwall(node, "confirm")
    assert (1, True) == (done.returncode, "no change is waiting" in done.stderr)


def test_a_refused_reload_leaves_nothing_to_take_back(node: Guarded) -> None:
    """The configuration in force was never left."""
    node.configure("nonsense = 1\n")
    assert 1 == vllmwall(node, "reload", "--confirm", "60s").returncode
    end_the_time(node)
    assert ("timeout", "open") == (stranger(node), peer(node))
    assert [] == node.logged(EventKey.CHANGE_ROLLED_BACK)


def test_a_rollback_during_its_reload_restores_the_configuration(node: Guarded) -> None:
    """The time ends while the daemon still reads the files: the walls stay, as they were."""
    without_peers(node)
    token = note(node.runtime, "reload", time.time()).token
    node.signal(signal.SIGSTOP)
    with sent(node, "reload", unconfirmed=token) as reload:
        with sent(node, "rollback", token=token) as rollback:
            node.signal(signal.SIGCONT)
            assert '"rolled_back": "reload"' in rollback.readline()
        assert '"result"' in reload.readline()
    assert ("timeout", "open") == (stranger(node), peer(node))


def test_a_rollback_waits_for_a_daemon_that_starts(node: Guarded) -> None:
    """The new daemon owns the tables before it answers, so the rollback asks it again."""
    without_peers(node)
    vllmwall(node, "reload", "--confirm", "60s")
    assert "timeout" == peer(node)
    token = json.loads((node.runtime / "unconfirmed.json").read_text())["token"]
    control, hidden = node.runtime / "control.sock", node.runtime / "hidden.sock"
    control.rename(hidden)
    words = command(node, "rollback", token, "--only-namespace", node.lab.node.path)
    with subprocess.Popen(words) as rollback:
        with pytest.raises(subprocess.TimeoutExpired):
            rollback.wait(timeout=3)
        hidden.rename(control)
        assert 0 == rollback.wait(timeout=PATIENCE)
    assert ("timeout", "open") == (stranger(node), peer(node))


def test_the_shell_that_asked_may_die(node: Guarded) -> None:
    """A lost ssh connection ends the shell and its children, and not the rollback."""
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
    """Then the walls on trial are removed without it."""
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


def end_the_time(node: Guarded) -> None:
    """Have the process that waits for the end of the trial run now."""
    found = ["pgrep", "-f", f"{node.runtime}.* rollback .*--after"]
    [pid] = subprocess.run(found, check=True, capture_output=True, text=True).stdout.split()
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    os.kill(int(pid), signal.SIGKILL)
    subprocess.run(node.lab.node.command(words[: words.index("--after")]), check=True)


@contextmanager
def sent(node: Guarded, command: str, **arguments: str) -> Iterator[TextIO]:
    """The daemon's side of the control socket, after a request."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(node.runtime / "control.sock"))
        connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
        with connection.makefile() as answers:
            yield answers
