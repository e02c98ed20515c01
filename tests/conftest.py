"""Fixtures and marks that all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.support import sharing
from tests.support.lab import Lab
from vllmwall.enforce.nftables.backend import Nftables

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
    """Mounted while any test process of this machine runs; removed by the last if it was ours."""
    with sharing.tracefs() if os.geteuid() == 0 else nullcontext():
        yield


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
