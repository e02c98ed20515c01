"""What the packages carry, as far as it can be seen without building one."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
from pathlib import Path

import pytest

import vllmwall
from vllmwall.linux.systemd import journal, sd_notify

REPOSITORY = Path(vllmwall.__file__).parents[1]
PACKAGING = REPOSITORY / "packaging"


def test_what_is_vendored_is_what_we_depend_on() -> None:
    """A new dependency that nobody pinned would be missing on every node."""
    text = (REPOSITORY / "pyproject.toml").read_text()
    (listed,) = re.findall(r"\ndependencies = \[(.*?)\n\]", text, re.DOTALL)
    wanted = {name.lower() for name in re.findall(r'"([A-Za-z0-9-]+)', listed)}
    pinned = set(re.findall(r"^([a-z0-9-]+)==", (PACKAGING / "vendored.txt").read_text(), re.M))
    assert set() == wanted - pinned, "run packaging/vendor.py pin"


@pytest.mark.parametrize("script", sorted(PACKAGING.glob("scripts/*/*")), ids=lambda one: one.name)
def test_every_script_is_a_shells(script: Path) -> None:
    """A mistake in a removal script leaves a package that cannot be removed."""
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_the_stand_in_tells_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """READY=1 as sd_notify(3) sends it; without a listener nothing happens."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not sd_notify.notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert sd_notify.notify("READY=1\nSTATUS=all is well")
        assert b"READY=1\nSTATUS=all is well" == listening.recv(100)


@pytest.mark.parametrize("length", [10, 1_000_000])
def test_the_stand_in_writes_to_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """Fields with lines in them; what is longer than a datagram goes as a file."""
    monkeypatch.setattr(journal, "_SOCKET", str(tmp_path / "journal"))
    text = "a\nb" + "x" * length
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "journal"))
        journal.send(text, PRIORITY=6, VLLMWALL_PORT="29500")
        data, passed, _, _ = socket.recv_fds(listening, 10_000, 1)
        if passed:
            data = Path(f"/proc/self/fd/{passed[0]}").read_bytes()
    size = struct.pack("<Q", len(text))
    assert data.startswith(b"MESSAGE\n" + size + text.encode() + b"\n")
    assert b"VLLMWALL_PORT\n" + struct.pack("<Q", 5) + b"29500\n" in data
