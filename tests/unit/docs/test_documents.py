"""The reader of the documentation finds every command, or the tests that use it prove nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import documents
from tests.support.documents import Command, NotRun, calls, commands

PAGE = """
```sh
# a comment
vllmwall status  # another one

cat >file <<'END'
vllmwall no-command
END
docker run \\
    image
```

1. In a list:

   ```console
   $ vllmwall bans
   BANNED  SINCE
   # nft list ruleset
   ```
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page outside of the repository."""
    monkeypatch.setattr(documents, "ROOT", tmp_path)
    found = tmp_path / "page.md"
    found.write_text(PAGE)
    return found


def test_commands_are_found_with_their_lines_and_output(page: Path) -> None:
    """Continued lines and here-documents are one command; a prompt begins one."""
    assert [
        Command("page.md", 4, "vllmwall status  # another one"),
        Command("page.md", 6, "cat >file <<'END'\nvllmwall no-command\nEND"),
        Command("page.md", 9, "docker run \\\n    image"),
        Command("page.md", 16, "vllmwall bans", "BANNED  SINCE"),
        Command("page.md", 18, "nft list ruleset"),
    ] == list(commands(page))


@pytest.mark.parametrize(
    ("shell", "found"),
    [
        ("vllmwall check && .venv/bin/vllmwall plan", [["check"], ["plan"]]),
        ("kubectl exec POD -- vllmwall status >/dev/null", [["status"]]),
        ("vllmwall explain peer 1 --json | jq '.a | .b'", [["explain", "peer", "1", "--json"]]),
        (
            "vllmwall run --name a -- torchrun x.py",
            [["run", "--name", "a", "--", "torchrun", "x.py"]],
        ),
        ("exec vllmwall status >file # vllmwall plan", [["status"]]),
        ("apt install ./vllmwall_*.deb", []),
        ("systemctl status vllmwall", []),
    ],
)
def test_calls_of_the_program_are_found_in_shell(shell: str, found: list[list[str]]) -> None:
    """Also after `--`, `exec` and `&&`; not where its name is an argument."""
    assert found == list(calls(shell))


def test_a_row_covers_commands_that_begin_like_it() -> None:
    """By words: `apt` is not `apt-get`."""
    row = NotRun("nft delete table", "", "")
    assert row.covers("nft delete table inet vllmwall")
    assert not row.covers("nft list table inet vllmwall")
    assert not NotRun("apt", "", "").covers("apt-get install x")
