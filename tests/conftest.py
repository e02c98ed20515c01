"""What all tests share: the machine's tracefs, mounted while they run where nobody mounted it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

TRACEFS = Path("/sys/kernel/tracing")


@pytest.fixture(scope="session", autouse=True)
def tracefs() -> Iterator[None]:
    """Mounted for the session, and taken away if it was not there before."""
    mounted = False
    if os.geteuid() == 0 and TRACEFS.is_dir() and not (TRACEFS / "instances").is_dir():
        command = ["mount", "-t", "tracefs", "nodev", str(TRACEFS)]
        mounted = subprocess.run(command, check=False).returncode == 0
    yield
    if mounted:
        subprocess.run(["umount", "--lazy", str(TRACEFS)], check=True)
