"""JSON files of our own: a file that is not as we write it is refused, however it differs."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from vllmwall.networks.records import VersionedFile, parsed, text_of


@dataclass(frozen=True)
class Entry:
    """One entry of a file."""

    name: str
    end: float | None


@dataclass(frozen=True, kw_only=True)
class File(VersionedFile):
    """A file with everything that ours have."""

    names: tuple[str, ...]
    entries: tuple[Entry, ...]


GOOD = {"version": 1, "names": ["a", "b"], "entries": [{"name": "c", "end": 1}]}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "1", "{}", '{"version": 1}', json.dumps({**GOOD, "more": 3}), "[" * 100_000],
)
def test_a_file_has_its_keys_and_no_others(text: str) -> None:
    """Too deep a nesting is no crash either."""
    with pytest.raises(ValueError, match=r"."):
        parsed(File, text)


def test_a_good_file_is_read() -> None:
    """As it was written."""
    file = File(names=("a", "b"), entries=(Entry("c", 1), Entry("d", 1.5), Entry("é", None)))
    assert file == parsed(File, text_of(file))
    assert File(names=("a", "b"), entries=(Entry("c", 1.0),)) == parsed(File, json.dumps(GOOD))


def test_a_file_of_another_version_is_refused() -> None:
    """Its fields may mean something else."""
    with pytest.raises(ValueError, match="version 2, and this vllmwall writes 1"):
        parsed(File, json.dumps({**GOOD, "version": 2}))


@pytest.mark.parametrize("value", ["1", True, float("nan"), float("inf"), [1.0]])
def test_a_time_is_a_finite_number(value: object) -> None:
    """JSON as Python reads it knows NaN and Infinity."""
    with pytest.raises(ValueError, match=r"."):
        parsed(File, json.dumps({**GOOD, "entries": [{"name": "c", "end": value}]}))


def test_a_number_beyond_all_numbers_is_refused() -> None:
    """Python reads it as infinity."""
    with pytest.raises(ValueError, match=r"."):
        parsed(File, json.dumps(GOOD).replace(": 1}", ": 1e999}"))


@pytest.mark.parametrize("value", [1, None, ["a"], "\ud800"])
def test_a_text_can_be_written_again(value: object) -> None:
    """Half a character is none."""
    with pytest.raises(ValueError, match=r"."):
        parsed(File, json.dumps({**GOOD, "entries": [{"name": value, "end": None}]}))


@pytest.mark.parametrize("value", [{"a": "b"}, "ab", None, ["a", 1]])
def test_a_list_of_texts_is_one(value: object) -> None:
    """Not a text, which has letters."""
    with pytest.raises(ValueError, match="names"):
        parsed(File, json.dumps({**GOOD, "names": value}))


@pytest.mark.parametrize("value", [{"a": "b"}, None, ["a"], [{"name": "a", "end": 1, "b": 2}]])
def test_a_list_of_objects_is_one(value: object) -> None:
    """Each with its keys."""
    with pytest.raises(ValueError, match="entries"):
        parsed(File, json.dumps({**GOOD, "entries": value}))
