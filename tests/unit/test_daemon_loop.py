"""The loop's promises that need no network: a failing pass or question ends nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# A daemon whose recognition raises, as a bug that a user's process provokes would.
FAILING = """
import sys
from pathlib import Path
from vllmwall import daemon, passes
from vllmwall.config.reading import Reading
def explode(*_): raise RuntimeError("a bug")
passes.recognize = explode
class Once(daemon.Daemon):
    def _wait(self, seconds):
        self._stopping = self.passes >= 2
        self.wake_soon("again")
daemon.Daemon = Once
folder = Path(sys.argv[1])
options = daemon.Options(folder / "none.toml", folder, ("/proc/self/ns/net",), "json")
sys.exit(daemon.run(options, Reading(options.config).settings))
"""


def test_a_pass_that_fails_by_a_bug_is_logged_and_tried_again(tmp_path: Path) -> None:
    """The walls that stand stay, and so does the daemon."""
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", FAILING, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    failed = [json.loads(line) for line in done.stderr.splitlines() if "pass failed" in line]
    assert len(failed) == 2
    assert "RuntimeError: a bug" in failed[0]["exception"]
