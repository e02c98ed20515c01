"""No change ends the ssh connection of who asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guarded import PEERS, Guarded, eventually, guarded
from tests.support.lab import Lab

SSHD = 2222
TAUGHT = f"{PEERS}[[workload]]\nname = 'sshd'\nmatch = {{ argv = '* 77' }}\n"
LOCKDOWN = f"{PEERS}[host]\nlockdown = true\n"
FAILSAFE = "failsafe = ['tcp/2222']\n"


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    """A daemon, and what a stranger is connected to at a port that is not 22."""
    with guarded(lab, tmp_path / "node") as found:
        lab.node.popen([sys.executable, "-m", "http.server", str(SSHD), "--bind", "::"])
        eventually(lambda: reach(found) == "open", "it listens")
        yield found


def vllmwall(
    node: Guarded, *arguments: str, client: str = "", above: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run it as one does over ssh; ``above``: only the shell that runs it has the variable."""
    words = [sys.executable, "-m", "vllmwall", "--socket", str(node.runtime / "control.sock")]
    environment = {key: value for key, value in os.environ.items() if key != "SSH_CONNECTION"}
    command = [*words, *arguments]
    if above:
        command = ["sh", "-c", 'env -u SSH_CONNECTION "$@"; exit $?', "sh", *command]
    if client or above:
        server = node.lab.node.ipv6 if ":" in client + above else node.lab.node.ipv4
        environment["SSH_CONNECTION"] = f"{client or above} 50000 {server} {SSHD}"
    return subprocess.run(
        node.lab.node.command(command), capture_output=True, text=True, check=False, env=environment
    )


def reach(node: Guarded) -> str:
    return node.lab.stranger.connect(node.lab.node.ipv4, SSHD)


def is_refused(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 1 and "your ssh connection" in done.stderr


def teach_it_sshd(node: Guarded) -> None:
    """A configuration that takes what ssh comes to for a workload."""
    node.configure(TAUGHT.replace("* 77", f"*http.server {SSHD}*"))


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_reload_that_would_end_it_is_refused(node: Guarded, family: str) -> None:
    """The rules that stand stay, and the words name the way out."""
    teach_it_sshd(node)
    client = getattr(node.lab.stranger, family)
    done = vllmwall(node, "reload", client=client)
    assert (1, True) == (done.returncode, f"connection from {client} to port {SSHD}" in done.stderr)
    assert "failsafe" in done.stderr
    assert "open" == reach(node)
    assert "would end" in vllmwall(node, "plan", client=client).stdout


def test_sudo_does_not_hide_it(node: Guarded) -> None:
    """sudo clears the environment of what it starts, and not that of the shell above it."""
    teach_it_sshd(node)
    assert is_refused(vllmwall(node, "reload", above=node.lab.stranger.ipv4))
    assert "open" == reach(node)


def test_force_does_it_all_the_same(node: Guarded) -> None:
    """Whoever has a console may."""
    teach_it_sshd(node)
    done = vllmwall(node, "reload", "--force", client=node.lab.stranger.ipv4)
    assert 0 == done.returncode, done.stderr
    assert "timeout" == reach(node)


def test_a_peer_or_a_failsafe_port_is_not_locked_out(node: Guarded) -> None:
    """Nothing is refused that is harmless."""
    teach_it_sshd(node)
    assert 0 == vllmwall(node, "reload", client=node.lab.peer.ipv4).returncode
    node.configure(TAUGHT.replace("* 77", f"*http.server {SSHD}*") + f"[host]\n{FAILSAFE}")
    assert 0 == vllmwall(node, "reload", client=node.lab.stranger.ipv4).returncode
    assert "open" == reach(node)


def test_up_is_refused_with_and_without_a_daemon(node: Guarded) -> None:
    """Nothing stands then, as before."""
    teach_it_sshd(node)
    vllmwall(node, "down", "--only-namespace", node.lab.node.path)
    node.ask("reload")
    client = node.lab.stranger.ipv4
    alone = ["--config", str(node.config), "--only-namespace", node.lab.node.path]
    assert is_refused(vllmwall(node, "up", client=client))
    assert "open" == reach(node)
    node.stop()
    assert is_refused(vllmwall(node, "up", *alone, client=client))
    assert "open" == reach(node)
    assert 0 == vllmwall(node, "up", *alone).returncode
    assert "timeout" == reach(node)


def test_lockdown_does_not_lock_out(node: Guarded) -> None:
    """What ssh comes to is no workload's port, and lockdown would close it."""
    node.configure(f"{PEERS}[host]\nlockdown = true\n")
    client = node.lab.stranger.ipv4
    assert is_refused(vllmwall(node, "reload", client=client))
    assert "open" == reach(node)
    node.configure(f"{PEERS}[host]\nlockdown = true\nfailsafe = ['tcp/{SSHD}']\n")
    done = vllmwall(node, "reload", client=client)
    assert 0 == done.returncode, done.stderr
    assert "open" == reach(node)


def test_a_ban_of_the_client_does_not_lock_out(node: Guarded) -> None:
    """Whoever was banned and works on the node's console cannot close the door on others' ssh."""
    client = node.lab.stranger.ipv4
    done = vllmwall(node, "ban", client, client=client)
    assert 1 == done.returncode, done.stdout
    assert "open" == reach(node)
