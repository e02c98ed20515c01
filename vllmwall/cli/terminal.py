"""Output of a command: JSON for programs, lines and tables for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

import click

from vllmwall.cli.command_line import common
from vllmwall.cli.drawing import Console
from vllmwall.linux.wire import encode

if TYPE_CHECKING:
    from vllmwall.engine.facts import ConfigProblem

PIPED_WIDTH = 200
"""Columns of output that is not a terminal: cutting the lines of a pipe would lose data."""

_UNKNOWN_WIDTH = 80  # of a serial console, whose size the kernel does not know

Answer = TypeVar("Answer")


def console() -> Console:
    """Standard output, as wide as the terminal, with colour only where it is wanted."""
    colour = {"always": True, "never": False}.get(common().color, _wants_colour())
    return Console(_width(), colour)


def _width() -> int:
    if not sys.stdout.isatty():
        return PIPED_WIDTH
    columns = os.environ.get("COLUMNS", "")
    found = int(columns) if columns.isdigit() else os.get_terminal_size(sys.stdout.fileno()).columns
    return found or _UNKNOWN_WIDTH


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
