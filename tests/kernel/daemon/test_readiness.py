"""A daemon is ready when its wall is applied, and removes no wall because it cannot see."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.guarded import PATIENCE, Guarded
from tests.support.lab import Lab
from vllmwall.engine.event_keys import EventKey

NOBODY = 65534


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Guarded:
    """A node with another user's workload; its daemon has ended, its wall is active."""
    made = Guarded(lab, tmp_path)
    made.folder.chmod(0o755)
    job = made.server(8000, user=NOBODY)
    job.open("tcp", "0.0.0.0", 8000)
    job.open("tcp", "0.0.0.0", 29500)
    made.start()
    assert ("open", "timeout") == reached(made)
    made.stop()
    return made


def reached(node: Guarded) -> tuple[str, ...]:
    """The API and what is internal, by a stranger."""
    return tuple(node.lab.stranger.connect(node.lab.node.ipv4, port) for port in (8000, 29500))


@contextmanager
def messages(node: Guarded, without: str) -> Iterator[socket.socket]:
    """The messages to systemd of a daemon that lacks a capability."""
    path = node.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        node.environment = {"NOTIFY_SOCKET": str(path)}
        node.before = f'set -- setpriv --bounding-set=-{without} "$@"'
        node.process = node.launch()
        systemd.settimeout(PATIENCE)
        yield systemd
        node.stop()


def state_of(systemd: socket.socket) -> str:
    """The next message about the daemon's state: those for the watchdog say nothing of it."""
    while (message := systemd.recv(4096).decode()) == "WATCHDOG=1":
        pass
    return message


def test_a_blind_daemon_is_ready_and_removes_no_rule(node: Guarded) -> None:
    """A restart or waiting would not help. The status line has the reason."""
    with messages(node, "sys_ptrace") as systemd:
        assert state_of(systemd).startswith(
            "READY=1\nSTATUS=Unknown: other users' processes cannot be looked into"
        )
        node.ask("reload")
        assert ("open", "timeout") == reached(node)
        assert "Unknown" in str(node.ask("status")["verdict"])


def test_a_daemon_that_cannot_read_its_wall_is_not_ready(node: Guarded) -> None:
    """In every pass. The old wall stays active meanwhile; the status line has the reason."""
    with messages(node, "net_admin") as systemd:
        said = systemd.recv(4096).decode()
        deadline = time.monotonic() + 7  # what failed is tried again after five seconds
        while (left := deadline - time.monotonic()) > 0:
            systemd.settimeout(left)
            with suppress(TimeoutError):  # nothing new to say
                said += systemd.recv(4096).decode()
        assert "READY=1" not in said
        assert "STATUS=the wall is not as wanted: " in said
        assert "Operation not permitted" in said
        assert 1 == len(node.logged(EventKey.NOT_READY))
        assert ("open", "timeout") == reached(node)


def test_a_wall_that_is_down_on_request_is_not_called_guarded(node: Guarded) -> None:
    """The daemon is ready all the same: it does what it was told."""
    node.start()
    node.ask("down")
    node.stop()
    with messages(node, "sys_boot") as systemd:
        assert state_of(systemd).startswith(
            "READY=1\nSTATUS=NOT guarded: the walls are down on request"
        )
        assert ("open", "open") == reached(node)
