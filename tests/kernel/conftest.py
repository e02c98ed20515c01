"""Fixtures for tests that build network namespaces and real rules. Needs root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import Lab
from vllmwall.enforce.nftables.backend import Nftables

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, and skip it where it cannot run."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.kernel)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root: builds network namespaces"))


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
