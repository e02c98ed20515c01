"""What systemd hears: it waits for READY=1 after a start and after each reload."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.changed_daemon import FAILING, ran
from vllmwall.daemon.supervisor import Supervisor


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket that hears what systemd would."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def heard(systemd: socket.socket) -> list[str]:
    """Everything that was said so far."""
    said = []
    while True:
        try:
            said.append(systemd.recv(4096).decode())
        except BlockingIOError:
            return said


def test_ready_is_said_once_and_again_after_a_reload(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else `systemctl reload` waits until its time is over, for ever again."""
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.getsockname())
    supervisor = Supervisor()
    supervisor.tell_once("READY=1")
    supervisor.feed_watchdog()
    supervisor.tell_once("READY=1")
    assert ["READY=1", "WATCHDOG=1"] == heard(systemd)
    supervisor.tell("RELOADING=1")
    supervisor.tell_once("READY=1")
    assert ["RELOADING=1", "READY=1"] == heard(systemd)


def test_a_daemon_whose_wall_does_not_stand_is_not_ready(
    systemd: socket.socket, tmp_path: Path
) -> None:
    """What is started after us starts guarded; the status line says what is wrong."""
    done = ran(FAILING, tmp_path, NOTIFY_SOCKET=systemd.getsockname())
    assert 0 == done.returncode, done.stderr
    said = heard(systemd)
    assert any(one.startswith("STATUS=the last pass failed: RuntimeError") for one in said), said
    assert not any("READY=1" in one for one in said)
