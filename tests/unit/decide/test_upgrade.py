"""Rules of the release before: an upgrade moves no listener unless CHANGELOG says so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import tomllib

from tests.upgrade.corpus import HERE, RECORDINGS, recordings, rules
from vllmwall.observe.snapshot import load

CHANGELOG = Path(__file__).parents[3] / "CHANGELOG.md"
SECTION = "### Changes who may connect"
RELEASES = sorted(path.parent.name for path in HERE.glob("*/rules.json"))


@dataclass(frozen=True)
class Move:
    """A rule that a release gave another audience on purpose, and the words that tell users."""

    recording: str
    rule: str
    before: str
    after: str
    changelog: str


@cache
def recorded(release: str) -> dict[str, dict[str, str]]:
    """The rules of a release by recording."""
    found: dict[str, dict[str, str]] = json.loads((HERE / release / "rules.json").read_text())
    return found


def moves(release: str) -> set[Move]:
    """The moves since then that CHANGELOG announces."""
    path = HERE / release / "moves.toml"
    content = tomllib.loads(path.read_text()) if path.exists() else {}
    return {Move(**each) for each in content.get("move", ())}


def announced() -> str:
    """CHANGELOG's lines on who may connect, each with single spaces."""
    parts = CHANGELOG.read_text().split(f"{SECTION}\n")[1:]
    return " ".join(" ".join(part.split("\n###")[0] for part in parts).split())


def moved(release: str, name: str) -> set[tuple[str, str, str]]:
    """The rules of a recording whose audience is another one today, or that are gone or new."""
    before, after = recorded(release)[name], rules(load(RECORDINGS / f"{name}.json"))
    return {
        (rule, before.get(rule, "none"), after.get(rule, "none"))
        for rule in before | after
        if before.get(rule) != after.get(rule)
    }


@pytest.mark.parametrize(
    ("release", "name"), [(release, name) for release in RELEASES for name in recorded(release)]
)
def test_an_upgrade_moves_no_listener_unannounced(release: str, name: str) -> None:
    """Open stays open, and closed stays closed: nobody who upgrades looks at every port."""
    known = {(one.rule, one.before, one.after) for one in moves(release) if one.recording == name}
    assert moved(release, name) == known, (
        f"name each move in tests/upgrade/{release}/moves.toml, with its words in CHANGELOG"
    )


@pytest.mark.parametrize("release", RELEASES)
def test_every_move_is_in_the_changelog(release: str) -> None:
    """Word for word, in the section that operators read before they upgrade."""
    text = announced()
    assert [one for one in moves(release) if one.changelog not in text] == []


def test_there_is_a_corpus_and_its_recordings_are_still_there() -> None:
    """A recording that is renamed would be tested no longer."""
    assert RELEASES
    names = set(recordings())
    assert [name for release in RELEASES for name in recorded(release) if name not in names] == []
