"""The configuration as the daemon reads it: in another process, never waited for, and equal."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.scripts import packaging
from tests.unit.conftest import Write
from vllmwall import __version__
from vllmwall.config import ConfigError, load
from vllmwall.config.reading import ConfigReader, Reading
from vllmwall.linux import helper_process

DOCS = packaging("config_docs")
EVERYTHING = re.sub(r"^#(?=[\[a-z])", "", DOCS.sample_toml(), flags=re.MULTILINE)
WRONG = "nonsense = 1\n[peers]\ncidrs = ['10.0.0.0/33']\n[policy]\napi = 'nobody'\n"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that is started in the place of Python; the test writes it."""
    found = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(found))
    return found


def script(path: Path, lines: str) -> None:
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)


def served(reader: ConfigReader, seconds: float = 30) -> None:
    """Serve the reader as the loop does, until its process has ended."""
    end = time.monotonic() + seconds
    while reader.fileno is not None:
        assert time.monotonic() < end
        select.select([reader.fileno], [], [], 0.05)
        reader.advance()


def read_apart(path: Path) -> Reading:
    reader, found = ConfigReader(path), []
    assert reader.request(found.append)
    served(reader)
    [reading] = found
    return reading


def test_every_key_of_the_reference_comes_over(write: Write) -> None:
    """The process answers what reading it here would give."""
    path = write("".join(re.findall(r"```toml\n(.*?)```", DOCS.reference_markdown(), re.DOTALL)))
    assert load(path).settings() == read_apart(path).usable()


def test_the_sample_with_every_key_comes_over(write: Write) -> None:
    """Custom workloads, limits and networks too."""
    path = write(EVERYTHING)
    settings = read_apart(path).usable()
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
        read_apart(path).usable()
    assert here.value.problems == there.value.problems
    assert str(here.value) == str(there.value)
    assert len(there.value.problems) == 3


def test_a_path_is_relative_to_where_we_are(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere."""
    path = write(WRONG)
    monkeypatch.chdir(path.parent)
    with pytest.raises(ConfigError, match="nonsense"):
        read_apart(Path(path.name)).usable()


def test_pydantic_stays_in_the_other_process(write: Write) -> None:
    """From whatever folder we are started."""
    code = (
        "import select, sys\nfrom pathlib import Path\n"
        "from vllmwall.config.reading import ConfigReader\n"
        "reader = ConfigReader(Path(sys.argv[1]))\n"
        "reader.request(lambda reading: print(reading.usable()))\n"
        "while reader.fileno is not None:\n"
        "    select.select([reader.fileno], [], [])\n"
        "    reader.advance()\n"
        "sys.exit('pydantic' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(write(EVERYTHING))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    assert "my-server" in done.stdout


def test_a_process_that_cannot_be_started_fails_the_request(write: Write, stand_in: Path) -> None:
    """At once, and with a hint; nothing is read in the loop instead."""
    path = write('mode = "audit"\n')
    assert not stand_in.exists()
    reader, found = ConfigReader(path), []
    assert reader.request(found.append)
    [problem] = found[0].problems
    assert "no helper process can be started" in problem.message
    assert "Try again" in problem.message


VERSION = f"echo {__version__}; "


@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("kill -9 $$", "ended without an answer"),
        ("exit 3", "ended without an answer"),
        (f"{VERSION} printf '{{'", "ended without an answer"),
        (f"{VERSION} echo '{{'", "gave no JSON"),
        (f"{VERSION} echo '{{}}'", "Reading.settings: a value is needed"),
        (f"{VERSION} echo '[1]'", "Reading: an object is needed"),
        ("head -c 20000000 /dev/zero", "too long an answer"),
        ("echo 9.9.9; echo '{}'", "another version of vllmwall is installed now. Restart"),
        ("printf '\\200\\4N.\\n'", "another version of vllmwall is installed now. Restart"),
    ],
)
def test_an_answer_that_is_not_one_fails_the_request(
    write: Write, stand_in: Path, output: str, why: str
) -> None:
    """Garbage, half an answer, or another version's: its settings may mean something else."""
    script(stand_in, output)
    reading = read_apart(write(""))
    assert reading.settings is None
    [problem] = reading.problems
    assert why in problem.message


def test_a_process_that_hangs_is_killed_and_the_loop_goes_on_meanwhile(
    write: Write, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call takes time: neither the start nor the steps before the deadline."""
    monkeypatch.setattr(helper_process, "_SECONDS", 0.5)
    script(stand_in, f"echo $$ >{stand_in}.pid; exec sleep 600")
    reader, found = ConfigReader(write("")), []
    longest, begun = 0.0, time.monotonic()
    assert reader.request(found.append)
    while not found:
        step = time.monotonic()
        reader.advance()
        longest = max(longest, time.monotonic() - step)
        assert time.monotonic() - begun < 20
        time.sleep(0.01)
    assert time.monotonic() - begun >= 0.5
    assert longest < 0.25
    assert "did not answer within 0.5 s" in found[0].problems[0].message
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path(f"{stand_in}.pid").read_text()), 0)


def count(stand_in: Path) -> int:
    """How many processes have been started."""
    return len(Path(f"{stand_in}.starts").read_text().splitlines())


def counted(stand_in: Path, lines: str = "") -> None:
    script(stand_in, f"echo start >>{stand_in}.starts; {lines}")


def test_one_process_runs_at_a_time_and_later_requests_share_the_next(
    write: Write, stand_in: Path
) -> None:
    """What the first one read may be older than what they ask about."""
    counted(stand_in, "sleep 0.3")
    reader, found = ConfigReader(write("")), []
    for number in range(10):
        assert reader.request(lambda _, number=number: found.append(number))
    served(reader)
    assert list(range(10)) == found
    assert 2 == count(stand_in)


def test_nothing_is_read_for_a_client_that_left(write: Write, stand_in: Path) -> None:
    """A client that asks and leaves, again and again, costs no process."""
    counted(stand_in, "sleep 0.3")
    reader, found = ConfigReader(write("")), []
    assert reader.request(found.append)
    for _ in range(5):
        assert reader.request(found.append, lambda: False)
    served(reader)
    assert 1 == len(found)
    assert 1 == count(stand_in)


def test_the_queue_is_bounded(write: Write, stand_in: Path) -> None:
    """More requests than any honest client makes are refused at once."""
    counted(stand_in, "sleep 0.3")
    reader, found = ConfigReader(write("")), []
    taken = [reader.request(found.append) for _ in range(80)]
    assert [True] * 65 + [False] * 15 == taken
    served(reader)
    assert 65 == len(found)
