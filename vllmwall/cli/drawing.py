"""Styled lines and tables for people: words wrap, columns share the width, colours are SGR codes.

Shows every character as it is. A style is words: ``bold``, ``dim``, a colour, ``not bold``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import click

_LINE = re.compile(r"^.*$", re.MULTILINE)
_GAP = 2  # characters between columns
_LEAST = 8
_CODES = {
    "bold": ("weight", "1"),
    "regular": ("weight", ""),
    "dim": ("dim", "2"),
    "red": ("colour", "31"),
    "green": ("colour", "32"),
    "yellow": ("colour", "33"),
    "cyan": ("colour", "36"),
    "default": ("colour", ""),
}

Line = list[tuple[str, str]]
"""Pieces of text, each with its style."""


class Text:
    """Text in pieces with a style each; pieces that are appended have the first one's style too."""

    def __init__(self, text: str = "", style: str = "") -> None:
        self._style = style
        self._pieces: Line = [(text, style)]

    def append(self, text: str, style: str = "") -> Text:
        """Add a piece, and return this text."""
        self._pieces.append((text, f"{self._style} {style}"))
        return self

    @property
    def plain(self) -> str:
        """All pieces without styles."""
        return "".join(text for text, _ in self._pieces)

    def part(self, start: int, end: int) -> Line:
        """The pieces between two positions."""
        found = []
        for text, style in self._pieces:
            found.append((text[max(0, start) : max(0, end)], style))
            start, end = start - len(text), end - len(text)
        return found


Cell = str | Text


@dataclass(frozen=True)
class Column:
    """A column of a table. A cell that does not fit is folded, or cut with an ellipsis; ``whole``
    gives way last. ``width`` is the least and ``most`` the greatest width, in characters."""

    title: str
    fit: Literal["fold", "cut", "whole"] = "fold"
    width: int = 0
    most: int | None = None
    right: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells below the columns' titles, where there are any. A row may lack last cells."""

    columns: Sequence[Column]
    rows: Iterable[Sequence[Cell]]

    def lines(self, width: int) -> Iterator[Line]:
        """The lines of the table, so wide if possible."""
        titles = [Text(one.title, "dim") for one in self.columns]
        rows = [titles] if any(one.title for one in self.columns) else []
        for row in self.rows:
            cells = (cell for cell, _ in zip_longest(row, self.columns, fillvalue=""))
            rows.append([cell if isinstance(cell, Text) else Text(cell) for cell in cells])
        widths = _widths(self.columns, rows, width)
        for texts in rows:
            columns = list(zip(self.columns, widths, strict=True))
            fitted = [list(_fitted(*each)) for each in zip(texts, columns, strict=True)]
            for number in range(max(map(len, fitted))):
                parts = [cell[number] if number < len(cell) else [] for cell in fitted]
                padded = (_padded(*each) for each in zip(parts, columns, strict=True))
                line = [piece for part in padded for piece in part]
                while line and not line[-1][0].strip():
                    line.pop()
                yield line


@dataclass(frozen=True)
class Console:
    """Standard output for people: so many characters wide, with colours or without."""

    width: int
    has_colour: bool

    def print(self, what: Cell | Table = "", style: str = "", *, soft_wrap: bool = False) -> None:
        """Print a text or a table. Long lines wrap at words; with ``soft_wrap`` they are left."""
        if isinstance(what, Table):
            lines = what.lines(self.width)
        else:
            text = what if isinstance(what, Text) else Text(what, style)
            width = len(text.plain) if soft_wrap else self.width
            lines = (text.part(*each) for each in _wrapped(text.plain, width))
        for line in lines:
            click.echo(self._drawn(line), color=self.has_colour)

    def _drawn(self, line: Line) -> str:
        codes = ((text, _sgr(style) if self.has_colour else "") for text, style in line if text)
        return "".join(f"\x1b[{code}m{text}\x1b[0m" if code else text for text, code in codes)


def _sgr(style: str) -> str:
    """``bold red`` as ``1;31``; of two colours the later one counts."""
    words = style.replace("not bold", "regular").split()
    return ";".join(filter(None, dict(map(_CODES.__getitem__, words)).values()))


def _size(text: str) -> int:
    """The width of a text on a terminal, where some characters are twice as wide."""
    if text.isascii():
        return len(text)
    from unicodedata import east_asian_width

    return len(text) + sum(east_asian_width(one) in "WF" for one in text)


def _wrapped(text: str, width: int) -> Iterator[tuple[int, int]]:
    """Where each line starts and ends. A word that is longer than a line is folded."""
    for line in _LINE.finditer(text):
        start = end = line.start()
        for word in re.finditer(r"\S+", line.group()):
            first, last = line.start() + word.start(), line.start() + word.end()
            if last - start > width and end > start:
                yield start, end
                start = first
            while last - start > max(1, width):
                yield start, start + max(1, width)
                start += max(1, width)
            end = last
        yield start, end


def _fitted(text: Text, place: tuple[Column, int]) -> Iterator[Line]:
    """The lines of a cell in a column that is so wide."""
    column, width = place
    if column.fit == "fold":
        yield from (text.part(*each) for each in _wrapped(text.plain, width))
        return
    for line in _LINE.finditer(text.plain):
        is_cut = column.fit == "cut" and len(line.group()) > width
        part = text.part(line.start(), min(line.end(), line.start() + width - is_cut))
        yield [*part, ("…", part[-1][1])] if is_cut else part


def _padded(line: Line, place: tuple[Column, int]) -> Line:
    column, width = place
    blank = (" " * max(0, width - sum(_size(text) for text, _ in line)), "")
    gap = (" " * _GAP, "")
    return [blank, *line, gap] if column.right else [*line, blank, gap]


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> list[int]:
    """The width of each column: what its cells need, less where the line has no room for all.

    The widest of the columns that fold gives way first, down to eight characters, then
    the widest of all.
    """
    room = width - _GAP * (len(columns) - 1)
    found = []
    for column, cells in zip(columns, zip(*rows, strict=True), strict=False):
        needed = max(_size(line) for cell in cells for line in cell.plain.split("\n"))
        found.append(min(max(needed, column.width), column.most or width))
    folding = [number for number, one in enumerate(columns) if one.fit == "fold"]
    for group, least in ((folding, _LEAST), (range(len(columns)), 1)):
        while sum(found) > room:
            giving = [one for one in group if found[one] > max(least, columns[one].width)]
            if not giving:
                break
            found[max(giving, key=found.__getitem__)] -= 1
    return found
