"""The file of birth facts: crashes, other hands, other versions, and users who want all of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest

from vllmwall.engine import saved_births
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.log import Logger
from vllmwall.engine.saved_births import FILE_NAME, SavedBirths
from vllmwall.model import Stack
from vllmwall.observe import Observer
from vllmwall.observe.births import Asked, Birth
from vllmwall.observe.shares import Account

MIB = 1 << 20
USER, OTHER = 1000, 1001
SECRET = "sk-very-secret"


def birth(pid: int, *words: str) -> Birth:
    """A process that serves."""
    argv = ("vllm", "serve", "--api-key", SECRET, "--port", "8000", *words)
    return Birth(pid, (pid * 10, 77), 1, argv, {"MASTER_PORT": "29500"}, Stack.VLLM)


def storable(*births: Birth) -> list[Birth]:
    """As they come back."""
    return [one.without_secrets() for one in births]


@dataclass
class Node:
    """What an observer knows of births, and was told of them."""

    facts: list[tuple[Account, Birth | Asked]] = field(default_factory=list)
    kept: int = 0
    births_recalled: list[Birth] = field(default_factory=list)
    asked_recalled: list[Asked] = field(default_factory=list)

    def births(self) -> Iterator[tuple[Account, Birth | Asked]]:
        """As an observer's."""
        return iter(self.facts)

    def recall(self, births: Iterable[Birth], backlogs: Iterable[Asked]) -> None:
        """As an observer's."""
        self.births_recalled, self.asked_recalled = list(births), list(backlogs)

    def learn(self, account: Account, *facts: Birth | Asked) -> None:
        """One more pass."""
        self.facts += [(account, one) for one in facts]
        self.kept += 1


class Stage:
    """Daemons that come one after the other, with one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / FILE_NAME
        self.logged: list[tuple[EventKey, Mapping[str, object]]] = []

    def daemon(self, *facts: Birth | Asked, account: Account = USER) -> tuple[SavedBirths, Node]:
        """One that has just started, and then saw this."""
        node = Node()
        saved = SavedBirths(self.folder, cast("Observer", node), cast("Logger", self._log))
        if facts:
            node.learn(account, *facts)
            settle(saved)
        return saved, node

    def recalled(self) -> list[Birth | Asked]:
        """What the next daemon knows."""
        _, node = self.daemon()
        return [*node.births_recalled, *node.asked_recalled]

    def _log(self, key: EventKey, **fields: object) -> None:
        self.logged.append((key, fields))


def settle(saved: SavedBirths) -> None:
    """Until everything is written."""
    end = time.monotonic() + 60
    while saved.deadline is not None:
        assert time.monotonic() < end
        saved.advance()


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """No daemon yet; they do not rest between two turns."""
    monkeypatch.setattr(saved_births, "_REST", 0)
    return Stage(tmp_path)


def test_the_next_daemon_knows_what_this_one_saw(stage: Stage) -> None:
    """Processes and listeners; nothing of it is a secret."""
    asked = Asked(4026531840, 12, -1, 4096)
    stage.daemon(birth(10), birth(11), asked)
    assert [*storable(birth(10), birth(11)), asked] == stage.recalled()
    assert [] == stage.logged
    assert SECRET not in stage.file.read_text()
    assert 0o600 == stage.file.stat().st_mode & 0o777


def test_a_fact_that_changes_replaces_the_one_before(stage: Stage) -> None:
    """As when a process execs, or is found in a workload."""
    saved, node = stage.daemon(birth(10))
    node.facts = [(USER, replace(birth(10, "--uvicorn-log-level"), program=(100, 78)))]
    node.kept += 1
    settle(saved)
    (found,) = stage.recalled()
    assert isinstance(found, Birth)
    assert ((100, 78), 7) == (found.program, len(found.argv))


def test_nothing_is_written_when_nothing_is_new(stage: Stage) -> None:
    """Not by a second pass, nor by the next daemon."""
    saved, node = stage.daemon(birth(10))
    before = stage.file.stat()
    node.kept += 1
    settle(saved)
    stage.daemon(birth(10))
    after = stage.file.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_daemon_that_is_killed_while_it_writes_loses_the_last_line_only(stage: Stage) -> None:
    """At every byte; and the next one goes on."""
    births = [birth(pid) for pid in range(10, 14)]
    stage.daemon(*births)
    whole = stage.file.read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == 10]
    for cut in range(ends[0], len(whole) + 1, 7):
        stage.file.write_bytes(whole[:cut])
        there = sum(end <= cut for end in ends) - 1
        assert storable(*births[:there]) == stage.recalled()
        stage.daemon(*births[:there], birth(99))
        assert storable(*births[:there], birth(99)) == stage.recalled()
    assert [] == stage.logged


@pytest.mark.parametrize("kind", ["altered", "binary", "deep", "no object", "unknown", "missing"])
def test_a_file_that_is_broken_is_one_line_in_the_log(stage: Stage, kind: str) -> None:
    """And no facts; the daemon starts, and makes it right."""
    stage.daemon(birth(10), birth(11))
    head, line, *rest = stage.file.read_bytes().splitlines(keepends=True)
    line = {
        "altered": line.replace(b"8000", b"8001"),
        "binary": b"\xff\xfe\n",
        "deep": saved_births._checksummed("process", 0)[:9] + b"[" * 100_000 + b"\n",
        "no object": saved_births._checksummed("process", [1]),
        "unknown": saved_births._checksummed("relay", {}),
        "missing": saved_births._checksummed("listener", {"namespace": 1}),
    }[kind]
    stage.file.write_bytes(b"".join((head, line, *rest)))
    assert [] == stage.recalled()
    assert [EventKey.BIRTHS_UNREADABLE] == [key for key, _ in stage.logged]
    stage.daemon(birth(12))
    assert storable(birth(12)) == stage.recalled()


def test_a_file_that_another_user_can_write_is_not_believed(stage: Stage) -> None:
    """Nor a symbolic link's, a folder or a pipe."""
    stage.daemon(birth(10))
    stage.file.chmod(0o666)
    assert [] == stage.recalled()
    stage.file.unlink()
    os.mkfifo(stage.file)
    assert [] == stage.recalled()
    assert [EventKey.BIRTHS_UNREADABLE] * 2 == [key for key, _ in stage.logged]
    stage.daemon(birth(12))
    assert storable(birth(12)) == stage.recalled()
    assert 0o600 == stage.file.stat().st_mode & 0o777


@pytest.mark.parametrize("what", ["boot", "version"])
def test_facts_of_another_boot_or_version_are_none(
    stage: Stage, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pids and times mean something else then; nothing is wrong."""
    stage.daemon(birth(10))
    kind, content = saved_births._head()
    other = {**cast("dict[str, object]", content), what: 2}
    with monkeypatch.context() as patched:
        patched.setattr(saved_births, "_head", lambda: (kind, other))
        assert [] == stage.recalled()
        stage.daemon(birth(11))
        assert storable(birth(11)) == stage.recalled()
    assert [] == stage.recalled()
    assert [] == stage.logged


def test_a_user_with_many_processes_costs_neither_the_disk_nor_another_user(stage: Stage) -> None:
    """100,000 forks, with long command lines, and a neighbour who comes last."""
    words = ("--model", "m" * 60) * 8
    crowd = [birth(pid, *words) for pid in range(1000, 101_000)]
    saved, node = stage.daemon(birth(10), account=OTHER)
    node.learn(USER, *crowd)
    node.learn(OTHER, birth(11))
    settle(saved)
    assert stage.file.stat().st_size < 1.5 * MIB
    found = stage.recalled()
    assert storable(birth(10), birth(11)) == [one for one in found if one.key < (1000,)]
    assert 100 < len(found) < 3000
    node.facts = [(USER, birth(pid)) for pid in range(1, 100)]  # the crowd has ended
    node.kept += 1
    settle(saved)
    assert {(pid,) for pid in range(1, 100)} == {one.key for one in stage.recalled()}


def test_the_file_does_not_grow_with_processes_that_come_and_go(stage: Stage) -> None:
    """What has ended is taken out when there is much of it."""
    saved, node = stage.daemon(birth(5))
    for turn in range(40):
        node.facts = [
            (USER, birth(pid)) for pid in (5, *range(1000 + turn * 100, 1100 + turn * 100))
        ]
        node.kept += 1
        settle(saved)
    assert stage.file.stat().st_size < 256 * 1024
    assert storable(birth(5))[0] in stage.recalled()


def test_the_loop_waits_for_a_turn_of_a_millisecond(stage: Stage) -> None:
    """However much there is to write: thousands of facts take many turns."""
    saved, node = stage.daemon(birth(5))
    node.learn(None, *(birth(pid) for pid in range(1000, 3000)))
    turns = 0
    while saved.deadline is not None:
        saved._next = 0.0
        before = len(saved._waiting)
        saved.advance()
        assert before - len(saved._waiting) < 500
        turns += 1
    assert turns > 5
    assert 2001 == len(stage.recalled())


def test_a_full_disk_costs_what_it_cannot_hold(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a line is no line, and later all is there."""

    def full(path: Path, data: bytes) -> None:
        with path.open("ab") as file:
            file.write(data[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved_births, "_FAILED_SECONDS", 0.0)
    saved, node = stage.daemon(birth(10))
    with monkeypatch.context() as patched:
        patched.setattr(saved_births, "append_to_file", full)
        node.learn(USER, birth(11))
        saved.advance()
        assert storable(birth(10)) == stage.recalled()
    saved.advance()
    settle(saved)
    assert storable(birth(10), birth(11)) == stage.recalled()
