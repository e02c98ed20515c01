"""The daemon's imports, and those that it must avoid: they stay in memory for its life."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vllmwall.engine.log import hidden

# Why they must not come back: the first seven are 3 to 14 MB each with what they import, the others
# are of commands that the daemon never runs, or of switches that are off.
HEAVY = {
    *("pydantic", "ssl", "_hashlib", "pyroute2", "prometheus_client", "rich", "click"),
    *("psutil", "yaml", "http", "email", "importlib.metadata", "zipfile", "decimal"),
    *(
        "vllmwall.inspect.audit",
        "vllmwall.inspect.doctor",
        "vllmwall.cli.jobs",
        "vllmwall.inspect.prove",
    ),
    *("vllmwall.config.models", "vllmwall.api.metrics.exposition", "vllmwall.config.schema"),
    *("vllmwall.enforce.evaluator", "vllmwall.observe.snapshot", "vllmwall.api.explain.question"),
}
# All that a start does but the daemon itself.
START = """
import sys
from vllmwall import __main__ as entry
from vllmwall.daemon import loop as daemon
daemon.run = lambda options, read: print(options.log, read().policy.mode.value, *sys.modules)
sys.argv = ["vllmwall", "daemon", *sys.argv[1:]]
entry.main()
"""


def started(*arguments: str) -> subprocess.CompletedProcess[str]:
    """As systemd does it."""
    return subprocess.run(
        [sys.executable, "-c", START, *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """One that is worth reading."""
    found = tmp_path / "vllmwall.toml"
    found.write_text('mode = "audit"\n')
    return found


def test_the_daemon_imports_nothing_heavy(config: Path) -> None:
    """Its memory is at most 40 MB, and a node has better uses for it."""
    done = started("--log", "json", "--config", str(config))
    assert "" == done.stderr
    log, mode, *modules = done.stdout.split()
    assert ("json", "audit") == (log, mode)
    assert set() == HEAVY & set(modules)


def test_a_wrong_command_line_is_told_once_and_in_words(config: Path) -> None:
    """By the daemon's own process: the other one, which found it wrong, is silent."""
    done = started("--config", str(config), "--log", "xml")
    assert (2, "") == (done.returncode, done.stdout)
    assert 1 == done.stderr.count("'xml' is not one of")
    assert "Traceback" not in done.stderr


def test_help_is_for_standard_output() -> None:
    """Where a pager finds it."""
    done = started("--help")
    assert (0, "") == (done.returncode, done.stderr)
    assert 1 == done.stdout.count("Run the daemon until SIGTERM")


def test_without_the_other_process_the_daemon_starts_all_the_same(
    config: Path, tmp_path: Path
) -> None:
    """It costs memory then, and nothing else."""
    no_process = f"import sys; sys.executable = {str(tmp_path / 'none')!r}"
    done = subprocess.run(
        [sys.executable, "-c", no_process + START, "--config", str(config)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ["None", "audit"] == done.stdout.split()[:2]
    assert "click" in done.stdout.split()


def test_a_hidden_module_can_be_imported_afterwards() -> None:
    """Others may need it: prometheus_client does not do without ssl."""
    sys.modules.pop("this", None)
    with hidden("this", "json"):
        import json  # noqa: F401 - which had been imported before

        with pytest.raises(ImportError):
            import this  # noqa: F401
    assert "this" not in sys.modules
