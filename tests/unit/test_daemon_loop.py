"""The loop's promises that need no network: a failing pass or question ends nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

# A daemon with ``Changed`` in its place, in a network namespace of its own.
CHANGED = """
import sys
from pathlib import Path
from vllmwall import daemon, passes
from vllmwall.config.reading import Reading
{}
daemon.Daemon = Changed
folder = Path(sys.argv[1])
options = daemon.Options(folder / "none.toml", folder, ("/proc/self/ns/net",), "json")
sys.exit(daemon.run(options, Reading(options.config).settings))
"""
# Its recognition raises, as a bug that a user's process provokes would.
FAILING = """
def explode(*_): raise RuntimeError("a bug")
passes.recognize = explode
class Changed(daemon.Daemon):
    def _wait(self, seconds):
        self._stopping = self.passes >= 2
        self.wake_soon("again")
"""
# Other passes come between an event and the pass in which what it told of has settled.
BETWEEN = """
import signal
class Changed(daemon.Daemon):
    def full_pass(self, reason):
        print(reason)
        super().full_pass(reason)
        if reason == "start":
            self.wake_soon("settle", 2)
            self.wake_soon("settle", 5)
            self.wake_soon("what comes first", 0.1)
        if reason in ("settle", "timer"):
            signal.raise_signal(signal.SIGTERM)
"""


def ran(changed: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What became of it."""
    return subprocess.run(
        ["unshare", "--net", sys.executable, "-c", CHANGED.format(changed), str(folder)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_pass_that_fails_by_a_bug_is_logged_and_tried_again(tmp_path: Path) -> None:
    """The walls that stand stay, and so does the daemon."""
    done = ran(FAILING, tmp_path)
    assert done.returncode == 0, done.stderr
    failed = [json.loads(line) for line in done.stderr.splitlines() if "pass failed" in line]
    assert len(failed) == 2
    assert "RuntimeError: a bug" in failed[0]["exception"]


def test_a_pass_in_between_is_none_that_something_settled_in(tmp_path: Path) -> None:
    """Libraries start their threads just after they listen: a pass too early sees none of them."""
    done = ran(BETWEEN, tmp_path)
    assert done.returncode == 0, done.stderr
    assert ["start", "what comes first", "second look", "settle"] == done.stdout.splitlines()
