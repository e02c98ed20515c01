"""The messages to systemd, which waits for READY=1 after a start and after each reload."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.changed_daemon import FAILING, ran
from vllmwall.config import load
from vllmwall.daemon.readiness import Readiness
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.engine.reconciler import Reconciler
from vllmwall.networks.peerlist import PeerList


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket that receives what systemd would."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def received(systemd: socket.socket) -> list[str]:
    """Every message so far."""
    said = []
    while True:
        try:
            said.append(systemd.recv(4096).decode())
        except BlockingIOError:
            return said


def test_ready_is_sent_once_and_again_after_a_reload(
    systemd: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the second one `systemctl reload` waits until it times out."""
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.getsockname())
    settings = load(tmp_path / "none.toml").settings()
    keeper = Reconciler(settings, PeerList(settings.peers, tmp_path), Nftables(), down=True)
    readiness = Readiness()
    down = "READY=1\nSTATUS=NOT guarded: the walls are down on request (vllmwall up)"
    readiness.report(keeper, None)
    readiness.feed_watchdog()
    readiness.report(keeper, None)
    assert [down, "WATCHDOG=1"] == received(systemd)
    readiness.reloading()
    readiness.report(keeper, None)
    reloading, ready = received(systemd)
    assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert down == ready


def test_a_failure_is_returned_once(tmp_path: Path) -> None:
    """The caller logs it then; the same one after the next pass is no news."""
    settings = load(tmp_path / "none.toml").settings()
    keeper = Reconciler(settings, PeerList(settings.peers, tmp_path), Nftables())
    readiness = Readiness()
    why = "no wall has been read back yet"
    assert [why, "", "a bug"] == [
        readiness.report(keeper, error) for error in (None, None, "a bug\nand its stack")
    ]


def test_a_daemon_without_an_active_wall_is_not_ready(
    systemd: socket.socket, tmp_path: Path
) -> None:
    """Units ordered after it start guarded; the status line says what is wrong."""
    done = ran(FAILING, tmp_path, NOTIFY_SOCKET=systemd.getsockname())
    assert 0 == done.returncode, done.stderr
    said = received(systemd)
    assert any(one.startswith("STATUS=the last pass failed: RuntimeError") for one in said), said
    assert not any("READY=1" in one for one in said)
