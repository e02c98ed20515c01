"""The configuration as the daemon has it read: in another process, and the same to the letter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.conftest import Write
from vllmwall import __version__
from vllmwall.config import ConfigError, load
from vllmwall.config.documents import reference_markdown, sample_toml
from vllmwall.config.reading import Reading
from vllmwall.linux import helper_process

EVERYTHING = re.sub(r"^#(?=[\[a-z])", "", sample_toml(), flags=re.MULTILINE)
WRONG = "nonsense = 1\n[peers]\ncidrs = ['10.0.0.0/33']\n[policy]\napi = 'nobody'\n"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is started in the place of Python; it is up to the test what it does."""
    found = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(found))
    return found


def script(path: Path, lines: str) -> None:
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)


def test_every_key_of_the_reference_comes_over(write: Write) -> None:
    """What the process says is what reading it here would have said."""
    path = write("".join(re.findall(r"```toml\n(.*?)```", reference_markdown(), re.DOTALL)))
    assert load(path).settings() == Reading(path).settings()


def test_the_sample_with_every_key_comes_over(write: Write) -> None:
    """Lessons, limits and networks too."""
    path = write(EVERYTHING)
    settings = Reading(path).settings()
    assert load(path).settings() == settings
    assert settings.definitions
    assert settings.policy.limits
    assert settings.peers.by_file


def test_problems_come_over_word_for_word(write: Write) -> None:
    """With file, line, key and what is allowed."""
    path = write(WRONG)
    with pytest.raises(ConfigError) as here:
        load(path)
    with pytest.raises(ConfigError) as there:
        Reading(path).settings()
    assert here.value.problems == there.value.problems
    assert str(here.value) == str(there.value)
    assert len(there.value.problems) == 3


def test_a_path_is_relative_to_where_we_are(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere."""
    path = write(WRONG)
    monkeypatch.chdir(path.parent)
    with pytest.raises(ConfigError, match="nonsense"):
        Reading(Path(path.name)).settings()


def test_pydantic_stays_in_the_other_process(write: Write) -> None:
    """That is what it is for; and so it does wherever we are started from."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom vllmwall.config.reading import Reading\n"
        "print(Reading(Path(sys.argv[1])).settings())\n"
        "sys.exit('pydantic' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(write(EVERYTHING))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    assert "my-server" in done.stdout


def test_where_no_process_can_be_started_it_is_read_here(write: Write, stand_in: Path) -> None:
    """A node without a process left must not be a node without a wall."""
    path = write('mode = "audit"\n')
    assert not stand_in.exists()
    assert load(path).settings() == Reading(path).settings()


@pytest.mark.parametrize("end", ["kill -9 $$", "exit 3", "echo half; exit 1"])
def test_when_the_process_fails_it_is_read_here(write: Write, stand_in: Path, end: str) -> None:
    """Out of memory, or a bug: what stands depends on neither."""
    script(stand_in, end)
    path = write('mode = "audit"\n')
    assert load(path).settings() == Reading(path).settings()


@pytest.mark.timeout(30)
def test_a_process_that_hangs_is_ended_and_not_waited_for(
    write: Write, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop has a watchdog."""
    monkeypatch.setattr(helper_process, "_PATIENCE", 0.2)
    script(stand_in, f"echo $$ >{stand_in}.pid; exec sleep 600")
    path = write('mode = "audit"\n')
    reading = Reading(path)
    assert load(path).settings() == reading.settings()
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path(f"{stand_in}.pid").read_text()), 0)


@pytest.mark.parametrize("said", ["9.9.9\\nwhatever", ""])
def test_another_version_on_the_disk_is_not_believed(
    write: Write, stand_in: Path, said: str
) -> None:
    """A package unpacked over a daemon that runs: its settings may mean something else."""
    script(stand_in, f"printf '{said}'")
    with pytest.raises(ConfigError, match="restart the daemon"):
        Reading(write("")).settings()
    assert not said.startswith(__version__)
