"""Where something runs out, refuses or jumps: the wall stays, it is said, and it goes on after."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.daemon.test_daemon import peer_gets, stranger_gets, walled
from tests.kernel.enforce.test_drift import _storm
from tests.kernel.enforce.test_ownership import OTHER
from tests.support.faults import faulty
from tests.support.guarded import Guarded, eventually, guarded
from tests.support.lab import Lab
from vllmwall.engine.event_keys import EventKey

OFF = {"VLLMWALL_OWNER": "off"}
NEW = 29501


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 64 KB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "none", str(folder)], check=True
    )
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill the disk; the file that does."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        (folder / "more").write_bytes(b"x")
    return filler


def closes(node: Guarded, port: int = NEW) -> None:
    """What the daemon is there for works."""
    eventually(lambda: f"tcp . {port}" in shown(node, "walled_any4"), "a rule is active", node.log)
    assert {"timeout"} == stranger_gets(node, port)
    assert {"open"} == peer_gets(node, port)


def shown(node: Guarded, name: str) -> str:
    """One of our sets. Who asks by connecting fills the queue of a server that never accepts."""
    command = ["nft", "list", "set", "inet", "vllmwall", name]
    done = subprocess.run(
        node.lab.node.command(command), capture_output=True, text=True, check=False
    )
    return done.stdout


def problems(node: Guarded) -> str:
    return "\n".join(node.ask("status")["problems"])  # type: ignore[arg-type]


def test_a_full_disk_costs_what_is_remembered_and_no_more(
    lab: Lab, tmp_path: Path, full: Path
) -> None:
    """State, runtime files and the log itself: a wall is put up, changed, and status tells."""
    node = Guarded(lab, tmp_path / "d", arguments=("--state-dir", str(full / "state")))
    node.runtime, node.log = full / "run", full / "log"
    node.runtime.mkdir()
    filler = fill(full)
    rank = node.rank()
    rank.open("tcp", "::", 29500)
    node.start()
    assert {"timeout"} == stranger_gets(node, 29500)
    rank.open("tcp", "::", NEW)
    closes(node)
    assert "could not be saved" in problems(node)
    assert node.ask("status")["safe"]
    filler.unlink()
    node.ask("reload")
    assert "could not be saved" not in problems(node)
    assert (full / "state" / "boot.nft").exists()
    assert 0 == node.stop()
    assert {"timeout"} == stranger_gets(node, NEW)


def test_a_log_that_nobody_reads_any_more_ends_nothing(lab: Lab, tmp_path: Path) -> None:
    """A pipe whose reader died: the daemon goes on without a word."""
    node = Guarded(lab, tmp_path)
    rank = node.rank()
    reading, writing = os.pipe()
    node.log = Path(f"/proc/self/fd/{writing}")
    node.process = node.launch()
    os.close(writing)
    os.close(reading)
    eventually(lambda: answers(node), "it answers")
    rank.open("tcp", "::", NEW)
    eventually(lambda: walled(node, NEW), "the port is closed")
    assert 0 == node.stop()


def answers(node: Guarded) -> bool:
    assert node.process is not None
    assert node.process.poll() is None, "the daemon ended"
    with contextlib.suppress(Exception):
        return bool(node.ask("status")["daemon"]["passes"])  # type: ignore[index]
    return False


def test_a_disk_without_room_for_a_socket_ends_the_start_loudly(lab: Lab, tmp_path: Path) -> None:
    """What cannot be tolerated: one clear line, a failure for systemd, and the wall stays."""
    with guarded(lab, tmp_path) as node:
        node.rank().open("tcp", "::", 29500)
        closes(node, 29500)
    (node.runtime / "control.sock.new").mkdir()
    (node.runtime / "control.sock.new" / "in-the-way").touch()
    process = node.launch()
    assert 1 == process.wait(timeout=15)
    (line,) = node.logged(EventKey.DAEMON_FAILED)
    assert "critical" == line["level"]
    assert "control.sock.new" in str(line["error"])
    assert {"timeout"} == stranger_gets(node, 29500)


def test_no_memory_for_a_transaction_changes_nothing_and_is_tried_again(
    lab: Lab, tmp_path: Path
) -> None:
    """The kernel refuses for a while: said in log and status, made good without an event."""
    refuse = tmp_path / "refuse"
    with guarded(lab, tmp_path / "d", environment=faulty(refuse=refuse)) as node:
        rank = node.rank()
        rank.open("tcp", "::", 29500)
        closes(node, 29500)
        refuse.touch()
        rank.open("tcp", "::", NEW)
        eventually(lambda: node.logged(EventKey.WALL_FAILED), "the refusal is logged", node.log)
        assert {"timeout"} == stranger_gets(node, 29500)
        assert {"open"} == peer_gets(node, 29500)
        assert os.strerror(errno.ENOMEM) in problems(node)
        assert not node.ask("status")["safe"]
        refuse.unlink()
        closes(node)
        eventually(lambda: node.ask("status")["safe"], "status is well again", node.log)
        assert "" == problems(node)


def test_a_table_that_belongs_to_another_program_is_taken_when_that_ends(
    lab: Lab, tmp_path: Path
) -> None:
    """Refused with EPERM at start: the owner is named, and the wall becomes right after it."""
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, lab.node.path, "stay"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        if other.stdout.readline() != "owned\n":
            pytest.skip("this kernel knows no owner")
        node = Guarded(lab, tmp_path)
        node.rank().open("tcp", "::", NEW)
        node.start()
        assert f"(pid {other.pid})" in problems(node)
        assert {"open"} == stranger_gets(node, NEW)
    finally:
        other.kill()
        other.wait()
    closes(node)
    eventually(lambda: node.ask("status")["safe"], "status is well", node.log)
    node.stop()


def test_notifications_that_overrun_while_we_are_stopped_are_made_up_for(
    lab: Lab, tmp_path: Path
) -> None:
    """ENOBUFS on the watch: what happened is unknown, so all of it is read and repaired."""
    with guarded(lab, tmp_path, environment=OFF) as node:
        node.rank().open("tcp", "::", NEW)
        closes(node)
        node.signal(signal.SIGSTOP)
        try:
            for _ in range(4):
                lab.node.run(["nft", "-f", "-"], stdin=_storm(10_000))
            lab.node.run(["nft", "delete", "table", "inet", "vllmwall"])
            assert {"open"} == stranger_gets(node, NEW)
        finally:
            node.signal(signal.SIGCONT)
        closes(node)
        found = node.ask("status")["daemon"]["modifications"]  # type: ignore[index]
        assert any("notifications were lost" in one["what"] for one in found)


def _first_free(pid: int) -> int:
    """The limit at which a process that has files open gets no other one."""
    taken = {int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()}
    return min(set(range(len(taken) + 1)) - taken)


def test_descriptors_that_run_out_cost_passes_and_not_the_wall(lab: Lab, tmp_path: Path) -> None:
    """Said in the log; with descriptors again all is made good, without an event.

    libnftables would end a process that has none left for a socket of its own (iface.c).
    """
    with guarded(lab, tmp_path) as node:
        rank = node.rank()
        rank.open("tcp", "::", 29500)
        closes(node, 29500)
        assert node.process is not None
        pid = node.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (_first_free(pid), before[1]))
        rank.open("tcp", "::", NEW)
        eventually(lambda: "Too many open files" in node.log.read_text(), "it is said", node.log)
        assert {"timeout"} == stranger_gets(node, 29500)
        assert not node.logged(EventKey.DAEMON_FAILED)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        closes(node)
        eventually(lambda: node.ask("status")["safe"], "status is well again", node.log)


@pytest.mark.parametrize("hours", [1000, -1000])
def test_a_clock_that_jumps_lets_nobody_in_and_stops_nothing(
    lab: Lab, tmp_path: Path, hours: int
) -> None:
    """A peer for two seconds is out after two seconds, whatever the clock says by then."""
    clock = tmp_path / "clock"
    with guarded(lab, tmp_path / "d", environment=faulty(clock=clock)) as node:
        rank = node.rank()
        rank.open("tcp", "::", 29500)
        closes(node, 29500)
        node.ask("peers.add", networks=["203.0.113.9/32", "2001:db8:bad::9/128"], seconds=2)
        assert {"open"} == stranger_gets(node, 29500)
        clock.write_text(str(hours * 3600))
        began = time.time()
        told = node.ask("status")["time"]
        assert abs(float(str(told)) - began) > 1e6, "the daemon's clock did not jump"
        eventually(
            lambda: "203.0.113.9" not in shown(node, "peers4"), "the peer's time is over", node.log
        )
        closes(node, 29500)
        node.ask("reload")
        assert {"timeout"} == stranger_gets(node, 29500)
        clock.unlink()
        node.ask("reload")
        assert {"timeout"} == stranger_gets(node, 29500)
        rank.open("tcp", "::", NEW)
        closes(node)
