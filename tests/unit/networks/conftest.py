"""A site of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.networks.peers_site import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site without any peers."""
    return Site(tmp_path)
