"""A daemon of which one thing is changed, in a network namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_CHANGED = """
import sys
from pathlib import Path
from vllmwall.daemon import loop as daemon
from vllmwall.engine import reconciler
from vllmwall.config.reading import read
{}
daemon.Daemon = Changed
folder = Path(sys.argv[1])
options = daemon.Options(folder / "none.toml", folder, ("/proc/self/ns/net",), "json")
sys.exit(daemon.run(options, read(options.config).usable))
"""
# Its recognition raises, as a bug that a user's process provokes would.
FAILING = """
def explode(*_): raise RuntimeError("a bug")
reconciler.recognize = explode
class Changed(daemon.Daemon):
    def _wait(self, seconds):
        self._stopping = self.state.daemon.passes >= 2
        self.wake_soon("again")
"""


def ran(changed: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What became of the daemon whose class ``Changed`` this script makes."""
    return subprocess.run(
        ["unshare", "--net", sys.executable, "-c", _CHANGED.format(changed), str(folder)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
