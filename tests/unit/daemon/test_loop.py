"""The loop's promises that need no network: a failing pass or question ends nothing."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.changed_daemon import FAILING, ran

# Other passes come between an event and the pass in which what it told of has settled.
BETWEEN = """
import signal
class Changed(daemon.Daemon):
    def full_pass(self, reason):
        if reason in ("start", "what comes first", "second look", "settle", "timer"):
            print(reason)  # others come from whatever else runs on this machine
        super().full_pass(reason)
        if reason == "start":
            self.wake_soon("settle", 2)
            self.wake_soon("settle", 5)
            self.wake_soon("what comes first", 0.1)
        if reason in ("settle", "timer"):
            signal.raise_signal(signal.SIGTERM)
"""


def test_a_pass_that_fails_by_a_bug_is_logged_and_tried_again(tmp_path: Path) -> None:
    """The walls that stand stay, and so does the daemon."""
    done = ran(FAILING, tmp_path)
    assert done.returncode == 0, done.stderr
    failed = [json.loads(line) for line in done.stderr.splitlines() if '"pass_failed"' in line]
    assert len(failed) == 2
    assert "RuntimeError: a bug" in failed[0]["exception"]


def test_a_pass_in_between_is_none_that_something_settled_in(tmp_path: Path) -> None:
    """Libraries start their threads just after they listen: a pass too early sees none of them."""
    done = ran(BETWEEN, tmp_path)
    assert done.returncode == 0, done.stderr
    assert ["start", "what comes first", "second look", "settle"] == done.stdout.splitlines()
