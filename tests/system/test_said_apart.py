"""The report of what could not be tested on a real system: at the end, apart from the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.box import REPOSITORY

TESTS = "bookworm and (purging or quick)"
NO_MIRROR = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    ("programs", "surroundings", "reason"),
    [
        ((), {}, "needs systemd-nspawn (apt-get install systemd-container)"),
        (("systemd-nspawn",), {}, "mmdebstrap is not installed"),
        (None, NO_MIRROR, "no root of Debian bookworm"),
    ],
)
def test_a_run_that_boots_nothing_says_so(
    tmp_path: Path, programs: tuple[str, ...] | None, surroundings: dict[str, str], reason: str
) -> None:
    """Without a program that it takes, or the mirror: the reason, once, with what it cost."""
    path = os.environ["PATH"]
    if programs is not None:
        for program in programs:
            (tmp_path / program).symlink_to(shutil.which(program) or "")
        path = str(tmp_path)
    pytest_ = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-k", TESTS]
    done = subprocess.run(
        [*pytest_, "tests/system/test_package_deb.py"],
        cwd=REPOSITORY,
        env={**os.environ, **surroundings, "PATH": path, "ROOTS": str(tmp_path / "roots")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    _, heading, last = done.stdout.partition(" NOT TESTED ON A REAL SYSTEM ")
    assert (0, True) == (done.returncode, bool(heading)), done.stdout
    assert "2 tests: " in last
    assert reason in last
