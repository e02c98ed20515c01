"""Man pages and completions, as packages carry them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.scripts import packaging

MANPAGES = packaging("manpages")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    MANPAGES.write_all(folder)
    return folder


def test_every_command_has_a_page(made: Path) -> None:
    """And the page of the whole names each of them with its whole first sentence."""
    whole = MANPAGES.whole()
    pages = {one.name for one in (made / "man").iterdir()}
    assert {"vllmwall.1", *(f"vllmwall-{name}.1" for name in whole.commands)} <= pages
    text = (made / "man" / "vllmwall.1").read_text()
    for name, command in whole.commands.items():
        assert name in text
        assert command.short_help.split()[-1] in text
    assert "rollback" not in text


def test_the_same_source_makes_the_same_bytes(made: Path, tmp_path: Path) -> None:
    """A package that is built twice is the same twice."""
    MANPAGES.write_all(tmp_path)
    for one in made.rglob("*"):
        if one.is_file():
            assert one.read_bytes() == (tmp_path / one.relative_to(made)).read_bytes()


def test_bash_takes_the_completion(made: Path) -> None:
    """It completes `vllmwall pee` to peers."""
    script = made / "completions" / "bash" / "vllmwall"
    assert "_vllmwall_completion" in script.read_text()
    subprocess.run(["bash", "-n", str(script)], check=True)
