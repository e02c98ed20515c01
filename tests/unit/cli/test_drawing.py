"""Lines and tables for people: every character is shown, in the room that there is."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllmwall.cli.drawing import Column, Console, Table, Text

WORDS = st.lists(st.text("abc.:/-é", min_size=1, max_size=30), max_size=8).map(" ".join)


def drawn(
    capsys: pytest.CaptureFixture[str], what: str | Text | Table, width: int = 40, style: str = ""
) -> list[str]:
    """The lines that a console without colours prints."""
    Console(width, has_colour=False).print(what, style)
    return capsys.readouterr().out.split("\n")[:-1]


def test_a_line_wraps_at_words(capsys: pytest.CaptureFixture[str]) -> None:
    """A word that is longer than a line is folded; the start of the text keeps its blanks."""
    assert ["  one two", "three", "fourfourfo", "ur five"] == drawn(
        capsys, "  one two three fourfourfour five", 10
    )
    assert [""] == drawn(capsys, "")
    assert ["a", "", "b"] == drawn(capsys, "a\n\nb")


def test_a_line_that_must_stay_whole_does(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that a person copies."""
    Console(5, has_colour=False).print("vllmwall peers add", soft_wrap=True)
    assert "vllmwall peers add\n" == capsys.readouterr().out


def test_columns_are_as_wide_as_they_need(capsys: pytest.CaptureFixture[str]) -> None:
    """And their titles; a right one ends where its title ends; last cells may be missing."""
    made = Table([Column("A", width=4), Column("NUMBER", right=True)], [("b", "1"), ("cdefg",)])
    assert ["A      NUMBER", "b           1", "cdefg"] == drawn(capsys, made)


def test_the_column_that_folds_gives_way(capsys: pytest.CaptureFixture[str]) -> None:
    """Then one that is cut; ``whole`` keeps its text; ``most`` limits a column in any room."""
    columns = [Column("P", "whole"), Column("WHY"), Column("NAME", "cut", most=6)]
    made = Table(columns, [("tcp 8000", "it was connected to a port", "tiny-llama")])
    assert [
        "P         WHY               NAME",
        "tcp 8000  it was connected  tiny-…",
        "          to a port",
    ] == drawn(capsys, made, 34)


def test_a_wide_character_takes_two_places(capsys: pytest.CaptureFixture[str]) -> None:
    """Model names may be Chinese."""
    made = Table([Column("NAME"), Column("PORT")], [("千问", "1"), ("abcd", "2")])
    assert ["NAME  PORT", "千问  1", "abcd  2"] == drawn(capsys, made)


@pytest.mark.parametrize(
    ("style", "codes"),
    [
        ("", ""),
        ("dim", "2"),
        ("bold red", "1;31"),
        ("bold red default", "1"),
        ("green dim", "32;2"),
    ],
)
def test_styles_are_codes(capsys: pytest.CaptureFixture[str], style: str, codes: str) -> None:
    """Of select graphic rendition (ECMA-48 8.3.117)."""
    Console(40, has_colour=True).print("text", style)
    wanted = f"\x1b[{codes}mtext\x1b[0m\n" if codes else "text\n"
    assert wanted == capsys.readouterr().out


def test_a_piece_has_the_style_of_the_first_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Unless its own takes that away; a break within a piece keeps it."""
    text = Text("ab", "bold").append(" cd", "cyan").append(" ef", "not bold")
    Console(5, has_colour=True).print(text)
    out = capsys.readouterr().out
    assert "\x1b[1mab\x1b[0m\x1b[1;36m cd\x1b[0m\nef\n" == out


def test_a_line_has_no_blanks_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    """With colours they would reach beyond the terminal's edge; and an empty table is no line."""
    made = Table([Column("AB"), Column("CD")], [("abcd", Text("e", "red")), ("a", "")])
    Console(8, has_colour=True).print(made)
    Console(8, has_colour=True).print(Table([Column("")], []))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert ["AB    CD", "abcd  e", "a"] == lines


@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=4), st.integers(30, 120))
def test_no_character_is_lost_and_no_line_too_long(
    rows: list[tuple[str, str, str]], width: int
) -> None:
    """Whatever the cells hold: columns that fold show all of it, in the given width."""
    made = Table([Column("A"), Column("B"), Column("C")], rows)
    lines = ["".join(text for text, _ in line) for line in made.lines(width)]
    assert all(len(line.rstrip()) <= width for line in lines)
    shown = "".join(lines[1:])
    for character in "abc.:/-é":
        assert sum(cell.count(character) for row in rows for cell in row) == shown.count(character)


@given(WORDS, st.integers(1, 60))
def test_lines_break_at_blanks_where_words_fit(text: str, width: int) -> None:
    """Two lines make the text again with a blank between them, or within a long word with none."""
    [*lines] = _lines(text, width)
    assert re.sub(r"\s", "", text) == re.sub(r"\s", "", "".join(lines))
    assert all(len(line) <= width for line in lines)
    for before, after in pairwise(lines):
        first = after.split(" ")[0]
        fits = len(before) + 1 + len(first) <= width
        assert not (fits and f"{before} {after}" in text)


def _lines(text: str, width: int) -> list[str]:
    made = Table([Column("")], [(text,)])
    return ["".join(part for part, _ in line).rstrip() for line in made.lines(width)]
