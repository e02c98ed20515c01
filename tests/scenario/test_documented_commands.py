"""A reader who runs the commands of the documentation gets what it shows.

Each page is run from top to bottom on a node of its own: a ``toml`` block is checked and becomes
the configuration, every command of ``sh`` and ``console`` blocks runs as it is written. What cannot
be run is listed in docs/reference/commands-not-run.md.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.documented_node import DocumentedNode, documented_node
from tests.support.documents import ROOT, Block, Command, blocks, commands, not_run, pages
from tests.support.lab import Lab

_RUN = ("sh", "console")
_CONFIG = "/etc/vllmwall/conf.d/50-documented.toml"
# Exit statuses that are an answer and no failure: see docs/reference/cli.md.
_ANSWERS = {"status": {5}, "reload": {5}, "doctor": {5}, "audit": {6}, "explain": {8, 9}}
_HEADINGS = re.compile(r"^ *[A-Z]{2,}[A-Z ]*(?: {2,}[A-Z]{2,}[A-Z ]*){2,}$", re.MULTILINE)
_NOT_RUN = not_run()


def is_run(command: Command) -> bool:
    """Whether it can be run here; `make` is tried in tests/unit/docs."""
    return not command.text.startswith("make") and not any(
        row.covers(command.text) for row in _NOT_RUN
    )


def headings(output: str) -> set[tuple[str, ...]]:
    """The column headings of each table."""
    return {tuple(re.split(r" {2,}", one.strip())) for one in _HEADINGS.findall(output)}


def steps(page: Path) -> list[Block | Command]:
    """Configurations and commands, as they come on the page."""
    run = [one for one in commands(page) if is_run(one)]
    configurations = [one for one in blocks(page) if one.language == "toml"]
    return sorted([*run, *configurations], key=lambda one: one.line)


PAGES = [page for page in pages() if any(isinstance(one, Command) for one in steps(page))]


CONFIGURED = [
    page
    for page in pages()
    if page not in PAGES and any(one.language == "toml" for one in blocks(page))
]


def apply(node: DocumentedNode, block: Block) -> None:
    """Write the configuration where the next command or reload finds it."""
    node.run(f"mkdir -p /etc/vllmwall/conf.d && cat >{_CONFIG} <<'END'\n{block.text}\nEND")
    done = node.run(f"vllmwall check {_CONFIG}")
    assert 0 == done.returncode, f"{block.page}:{block.line}: {done.stdout}{done.stderr}"


def follow(node: DocumentedNode, command: Command) -> None:
    """Run a command; it must do what the page says."""
    done = node.run(command.text)
    shown = f"{command}\nexit status {done.returncode}\n{done.stdout}{done.stderr}"
    if command.sample.startswith("vllmwall: "):
        assert 0 != done.returncode, shown
        return
    assert done.returncode in expected(command.text), shown
    printed = headings(done.stdout)
    for columns in headings(command.sample):  # a terminal of 80 columns shows the first ones
        assert any(one[: len(columns)] == columns for one in printed), shown


def expected(shell: str) -> set[int]:
    """The exit statuses of a command that worked."""
    answers = {code for word in shell.split() for code in _ANSWERS.get(word, ())}
    interrupted = {-2, 0, 130} if "--follow" in shell else {0}
    return answers | interrupted


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_work(shared_lab: Lab, tmp_path: Path, page: Path) -> None:
    """From top to bottom, on a node where nothing of the page was done before."""
    tmp_path.chmod(0o755)
    with documented_node(shared_lab, tmp_path) as node:
        for step in steps(page):
            if isinstance(step, Block):
                apply(node, step)
            else:
                follow(node, step)


@pytest.mark.parametrize("page", CONFIGURED, ids=lambda page: str(page.relative_to(ROOT)))
def test_configurations_are_valid(page: Path, tmp_path: Path) -> None:
    """Also on pages without a command to run: their blocks are parts of one configuration."""
    parts = [one.text for one in blocks(page) if one.language == "toml"]
    file = tmp_path / "vllmwall.toml"
    file.write_text("\n".join(parts))
    command = [ROOT / ".venv/bin/vllmwall", "check", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout
