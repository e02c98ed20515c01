"""The doctor's diagnosis where the kernel reports no new listeners."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vllmwall.engine.facts import DaemonFacts
from vllmwall.inspect.doctor import kernel
from vllmwall.inspect.doctor.diagnosis import Health


def test_the_daemons_answer_counts() -> None:
    """It may have mounted tracefs for itself; without events it still guards: a warning."""
    daemon = DaemonFacts(1, "1.0", 0.0, "poll", "tracefs: Invalid argument")
    (found,) = (one for one in kernel.features(daemon) if one.subject == "events")
    assert Health.WARN is found.state
    assert "tracefs: Invalid argument" in found.seen
    daemon = replace(daemon, events="tracefs")
    (found,) = (one for one in kernel.features(daemon) if one.subject == "events")
    assert Health.OK is found.state


def test_a_locked_down_kernel_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are there and cannot be opened (kernel_lockdown(7))."""
    lockdown = tmp_path / "lockdown"
    monkeypatch.setattr(kernel, "_LOCKDOWN", lockdown)
    monkeypatch.setattr(kernel, "MOUNTS", (tmp_path,))
    (tmp_path / "events").mkdir()
    lockdown.write_text("none integrity [confidentiality]\n")
    (found,) = (one for one in kernel.features(None) if one.subject == "events")
    assert Health.WARN is found.state
    assert "kernel lockdown: confidentiality" in found.seen
