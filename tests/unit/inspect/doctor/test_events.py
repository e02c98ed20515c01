"""What the doctor says where the kernel tells nothing of new listeners."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllmwall.inspect.doctor import kernel
from vllmwall.inspect.doctor.diagnosis import State
from vllmwall.inspect.doctor.service import surroundings


def test_a_daemon_that_polls_says_so(tmp_path: Path) -> None:
    """It guards all the same, so it is nothing to mend."""
    daemon = {"events": "poll", "events_reason": "tracefs: Invalid argument", "events_lost": 0}
    status = {"verdict": "Safe", "safe": True, "daemon": daemon}
    found = {one.subject: one for one in surroundings(status, "", str(tmp_path / "none.toml"))}
    assert State.WARN is found["the daemon's events"].state
    assert "tracefs: Invalid argument" in found["the daemon's events"].seen
    daemon["events"] = "tracefs"
    again = surroundings(status, "", str(tmp_path / "none.toml"))
    assert "the daemon's events" not in {one.subject for one in again}


def test_a_locked_down_kernel_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are there and cannot be opened (kernel_lockdown(7))."""
    lockdown = tmp_path / "lockdown"
    monkeypatch.setattr(kernel, "_LOCKDOWN", lockdown)
    monkeypatch.setattr(kernel, "TRACEFS_MOUNTS", (tmp_path,))
    (tmp_path / "events").mkdir()
    lockdown.write_text("none integrity [confidentiality]\n")
    (found,) = (one for one in kernel.features() if one.subject == "events")
    assert State.WARN is found.state
    assert "kernel lockdown: confidentiality" in found.seen
