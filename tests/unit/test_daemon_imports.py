"""What the daemon's process imports, and what it must not: it stays in memory for its life."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vllmwall.absent import absent

# Why they must not come back: the first six are 3 to 14 MB each with what they import, the others
# are of commands that the daemon never runs, or of switches that are off.
HEAVY = {
    *("pydantic", "ssl", "_hashlib", "pyroute2", "prometheus_client", "rich"),
    *("psutil", "yaml", "http", "email", "importlib.metadata", "zipfile", "decimal"),
    *("vllmwall.audit", "vllmwall.doctor", "vllmwall.jobs", "vllmwall.prove"),
    *("vllmwall.config.models", "vllmwall.exposition", "vllmwall.report.schemas"),
    *("vllmwall.enforce.evaluation", "vllmwall.observe.recording", "vllmwall.questions.explain"),
}
DAEMON = (
    "import sys\nfrom vllmwall.cli import command\ncommand.get_command(None, 'daemon')\n"
    "import vllmwall.config.apart, vllmwall.daemon, vllmwall.options\nprint(*sys.modules)"
)


def test_the_daemon_imports_nothing_heavy() -> None:
    """Its memory is at most 40 MB, and a node has better uses for it."""
    done = subprocess.run(
        [sys.executable, "-c", DAEMON], capture_output=True, text=True, check=True
    )
    assert set() == HEAVY & set(done.stdout.split())


def test_what_is_absent_is_there_again_afterwards() -> None:
    """Others may need it: prometheus_client does not do without ssl."""
    sys.modules.pop("this", None)
    with absent("this", "json"):
        import json  # noqa: F401 - which had been imported before

        with pytest.raises(ImportError):
            import this  # noqa: F401
    assert "this" not in sys.modules
