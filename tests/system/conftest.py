"""Tests of what systemd makes of us, in a box with a real one. Needs root and systemd-nspawn."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab
from tests.system.box import Box, box

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, and skip it where it cannot run; in CI it must."""
    reason = _why_not()
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.kernel)
            item.add_marker(pytest.mark.system)
            if reason and "CI" not in os.environ:
                item.add_marker(pytest.mark.skip(reason=reason))


def _why_not() -> str:
    if os.geteuid() != 0:
        return "needs root: boots a container"
    if shutil.which("systemd-nspawn") is None:
        return "needs systemd-nspawn (apt-get install systemd-container)"
    return ""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A network whose stranger has a cable to the box."""
    with Lab() as made:
        yield made


@pytest.fixture
def host(lab: Lab, tmp_path: Path) -> Iterator[Box]:
    """A host with a systemd of its own, not booted yet."""
    with box(tmp_path, lab.stranger) as made:
        yield made
