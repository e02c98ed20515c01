"""Output of a command: JSON for programs, tables and colours for people.

rich is imported only when something is drawn for a person.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Literal, TypeVar

import click

from vllmwall.cli.command_line import common
from vllmwall.linux.wire import encode

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from vllmwall.engine.facts import ConfigProblem

PIPED_WIDTH = 200
"""Columns of output that is not a terminal: cutting the lines of a pipe would lose data."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Column:
    """A column of a table. A cell that does not fit is folded, or cut with an ellipsis; ``whole``
    never gives way. ``width`` is the
    least and ``most`` the greatest width, in characters."""

    title: str
    fit: Literal["fold", "cut", "whole"] = "fold"
    width: int | None = None
    most: int | None = None
    right: bool = False


def table(columns: Sequence[Column], rows: Iterable[Sequence[RenderableType]]) -> Table:
    """A table for people, in the one style of this program."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for one in columns:
        made.add_column(
            one.title,
            justify="right" if one.right else "left",
            overflow="ellipsis" if one.fit == "cut" else "fold",
            no_wrap=one.fit != "fold",
            min_width=one.width,
            max_width=one.most,
        )
    for row in rows:
        made.add_row(*row)
    return made


def console() -> Console:
    """A console as wide as the terminal, with colour only where it is wanted."""
    from rich.console import Console

    colour = {"always": True, "never": False}.get(common().color, _wants_colour())
    return Console(
        force_terminal=True if colour else None,
        no_color=not colour,
        color_system="standard" if colour else None,
        width=None if sys.stdout.isatty() else PIPED_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,  # `:100:` in an IPv6 address is one
        soft_wrap=False,
    )


def _wants_colour() -> bool:
    return (
        sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


def print_answer(answer: Answer, draw: Callable[[Console, Answer], None]) -> None:
    """Print JSON where ``--json`` was given, else draw the answer for people."""
    if common().as_json:
        print_json(answer)
    else:
        draw(console(), answer)


def print_json(value: object) -> None:
    """Print an answer as indented JSON."""
    click.echo(json.dumps(encode(value), indent=2))


def problem_line(one: ConfigProblem) -> str:
    """``vllmwall.toml:3: peers.cidrs: …``."""
    where = one.file if one.line is None else f"{one.file}:{one.line}"
    return ": ".join(part for part in (where, one.key, one.message) if part)


def printable(value: object) -> object:
    """The value without control characters: users choose the names of models, scripts and paths,
    and an escape sequence in a name must not act on the terminal."""
    if isinstance(value, str) and not isinstance(value, Enum):
        return "".join(one if one.isprintable() else "?" for one in value)
    if isinstance(value, list):
        return [printable(one) for one in value]
    if isinstance(value, tuple):
        return tuple(printable(one) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        found = {one.name: printable(getattr(value, one.name)) for one in fields(value)}
        return replace(value, **found)
    if isinstance(value, dict):
        return {key: printable(one) for key, one in value.items()}
    return value
