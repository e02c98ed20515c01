"""Fixtures and marks that all tests share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import Lab
from vllmwall.enforce.nftables.backend import Nftables

TRACEFS = Path("/sys/kernel/tracing")
_HERE = Path(__file__).parent
_NEED_ROOT = {_HERE / "kernel", _HERE / "scenario"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that builds network namespaces, and skip it where it cannot run."""
    for item in items:
        if _NEED_ROOT & set(item.path.parents):
            item.add_marker(pytest.mark.kernel)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root: builds network namespaces"))


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


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A network of a node, a peer and a stranger, new for this test."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[Lab]:
    """A network that the tests of one file share: they take away what they put up."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def backend() -> Nftables:
    """The backend under test; it keeps no state that tests could share by mistake.

    But it keeps namespaces, two descriptors each: so no longer than for the tests of a file.
    """
    return Nftables()
