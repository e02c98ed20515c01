"""Commands in the documentation are ones that the program knows."""

from __future__ import annotations

import subprocess
from pathlib import Path

import click
import pytest

from tests.support.documents import (
    ROOT,
    Command,
    blocks,
    calls,
    commands,
    inline_commands,
    not_run,
    pages,
)
from vllmwall.cli import command as program

_LANGUAGES = {"sh", "console", "toml", "yaml", "ini", "text"}
_NOT_READ = {"docs/reference/cli.md", "CHANGELOG.md"}  # generated; history
PAGES = [page for page in pages() if str(page.relative_to(ROOT)) not in _NOT_READ]
ALL = [one for page in PAGES for one in commands(page)]


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Command lines are parsed as far as the command itself, which is not run."""
    monkeypatch.setattr(click.Command, "invoke", lambda _command, _context: None)


def parse(arguments: list[str]) -> None:
    """Parse a command line as the program does. Raises click.UsageError."""
    program.main(arguments, prog_name="vllmwall", standalone_mode=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_has_a_language(page: Path) -> None:
    """No command escapes the tests in a block that is called something else."""
    for block in blocks(page):
        assert block.language in _LANGUAGES, f"{block.page}:{block.line}"


@pytest.mark.parametrize("one", ALL, ids=str)
def test_calls_of_vllmwall_parse(one: Command) -> None:
    """Commands, options and arguments exist, also where the command cannot be run."""
    for arguments in calls(one.text):
        parse(arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_calls_in_running_text_parse(page: Path) -> None:
    """`vllmwall reload` in a sentence is a command too; it may leave arguments out."""
    for text in inline_commands(page):
        for arguments in calls(text):
            try:
                parse(arguments)
            except (click.MissingParameter, click.exceptions.NoArgsIsHelpError):
                pass
            except click.UsageError as error:
                pytest.fail(f"`{text}`: {error.format_message()}")


@pytest.mark.parametrize("one", [one for one in ALL if one.text.startswith("make")], ids=str)
def test_make_targets_exist(one: Command) -> None:
    """A dry run finds the target and everything that it needs."""
    dry = one.text.replace("make", "make --dry-run", 1)
    done = subprocess.run(["sh", "-c", dry], cwd=ROOT, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr


def test_rows_of_commands_not_run_are_used() -> None:
    """A command that nobody documents any more has no excuse, and its test exists."""
    for row in not_run():
        assert any(row.covers(one.text) for one in ALL), row.beginning
        if not row.tested_by.startswith("by hand"):
            assert (ROOT / row.tested_by).exists(), row
