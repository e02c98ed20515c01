"""The published JSON schemas of answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.scripts import packaging

CLI_DOCS = packaging("cli_docs")

PUBLISHED = Path(__file__).parents[3] / "docs" / "reference" / "schemas"


@pytest.mark.parametrize("command", CLI_DOCS.SHAPES)
def test_a_published_schema_is_what_the_command_prints(command: str) -> None:
    """`make docs` was run after the last change of a shape, and each says its version."""
    schema = CLI_DOCS.schema_of(command)
    assert (PUBLISHED / f"{command}.json").read_text() == schema
    assert {"error": "error"}.get(command, "version") in json.loads(schema)["required"]


def test_nothing_is_published_that_no_command_prints() -> None:
    """A command that went takes its schema along."""
    assert {one.stem for one in PUBLISHED.glob("*.json")} == set(CLI_DOCS.SHAPES)
