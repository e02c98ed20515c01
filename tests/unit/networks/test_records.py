"""JSON files of our own: what is not as we write it is refused, whatever it is."""

from __future__ import annotations

import pytest

from vllmwall.networks import records


@pytest.mark.parametrize(
    "text", ["", "[]", "1", "{}", '{"a": 1}', '{"a": 1, "b": 2, "c": 3}', "[" * 100_000]
)
def test_a_file_has_its_keys_and_no_others(text: str) -> None:
    """Too deep a nesting is no crash either."""
    with pytest.raises(ValueError, match=r"."):
        records.parsed(text, "a", "b")


def test_a_good_file_is_read() -> None:
    """As it was written."""
    assert {"a": 1, "b": [{"c": "d"}]} == records.parsed('{"a": 1, "b": [{"c": "d"}]}', "a", "b")
    assert [{"c": "d"}] == records.records([{"c": "d"}], "c")
    assert ["a", "b"] == records.texts(["a", "b"])
    assert (1, 1.5) == (records.moment(1), records.moment(1.5))
    assert (None, 2.5) == (records.end(None), records.end(2.5))


@pytest.mark.parametrize("value", ["1", True, None, float("nan"), float("inf"), [1.0]])
def test_a_moment_is_a_finite_number(value: object) -> None:
    """JSON as Python reads it knows NaN and Infinity."""
    with pytest.raises(ValueError, match="seconds"):
        records.moment(value)


@pytest.mark.parametrize("value", [1, None, ["a"], "\ud800"])
def test_a_text_can_be_written_again(value: object) -> None:
    """Half a character is none."""
    with pytest.raises(ValueError, match=r"."):
        records.text(value)


@pytest.mark.parametrize("value", [{"a": "b"}, "ab", None, ["a", 1]])
def test_a_list_of_texts_is_one(value: object) -> None:
    """Not a text, which has letters."""
    with pytest.raises(ValueError, match="needed"):
        records.texts(value)


@pytest.mark.parametrize("value", [{"a": "b"}, None, ["a"], [{"a": 1, "b": 2}]])
def test_a_list_of_objects_is_one(value: object) -> None:
    """Each with its keys."""
    with pytest.raises(ValueError, match="needed"):
        records.records(value, "a")
