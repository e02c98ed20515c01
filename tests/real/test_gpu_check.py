"""`tests/gpu/check` as far as it needs no GPU: it runs, compares, records and names mistakes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from vllmwall.observe.snapshot import load
from vllmwall.recognize import recognize

ROOT = Path(__file__).parents[2]
CHECK = ROOT / "tests/gpu/check"
DEVICES = [Path("/dev/nvidia0"), Path("/dev/kfd")]


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(CHECK), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def test_a_machine_without_a_gpu_is_told_so() -> None:
    """With a status of its own: nothing was checked."""
    if any(one.exists() for one in DEVICES):
        assert check("--python", "/nonexistent").returncode == 2
        return
    done = check()
    assert done.returncode == 3
    assert "no GPU here" in done.stdout


def test_the_part_that_needs_no_gpu_runs_and_records(tmp_path: Path) -> None:
    """gloo in NCCL's place, by real torch."""
    target = tmp_path / "recording.json"
    done = check("--transport", "gloo", "-o", str(target))
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(target.read_text())
    assert set(content["roles"].values()) == {"gloo", "tcpstore"}
    [workload] = recognize(load(target)).workloads
    assert len(workload.listeners) == len(content["roles"])


def test_what_does_not_start_is_no_success(tmp_path: Path) -> None:
    done = check("--transport", "gloo", "--python", str(tmp_path / "none"))
    assert done.returncode == 2
    assert "No such file" in done.stdout
