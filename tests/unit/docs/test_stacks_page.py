"""The page of stacks names every row and role."""

from __future__ import annotations

from pathlib import Path

from vllmwall.model import Role
from vllmwall.recognize.row_file import table

PAGE = (Path(__file__).parents[3] / "docs/reference/stacks.md").read_text()


def test_every_row_is_on_the_page() -> None:
    """By its stack and its source."""
    for row in table().programs:
        assert f"| {row.stack.value} |" in PAGE
        assert row.source in PAGE


def test_every_role_is_on_the_page() -> None:
    """Ray's roles and unix sockets are not listed one by one."""
    named = [role.value for role in Role if not role.value.startswith("ray-")]
    missing = {one for one in named if f"`{one}`" not in PAGE} - {"zmq-ipc", "unix"}
    assert missing == set()
