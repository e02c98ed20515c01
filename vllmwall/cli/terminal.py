"""Where a command writes: colours, width, JSON, errors.

rich is imported only when something is drawn for a person.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, NoReturn, cast

import click

from vllmwall.api.client import request
from vllmwall.api.errors import ControlError
from vllmwall.cli.exit_codes import Exit, exit_of

if TYPE_CHECKING:
    from rich.console import Console

_PIPED_WIDTH = 200  # nobody wraps a pipe; cutting its lines would lose data


def console() -> Console:
    """A console as wide as the terminal, with colour only where it is wanted."""
    from rich.console import Console

    choice = click.get_current_context().find_root().params.get("color", "auto")
    colour = {"always": True, "never": False}.get(choice, _wants_colour())
    return Console(
        force_terminal=True if colour else None,
        no_color=not colour,
        color_system="standard" if colour else None,
        width=None if sys.stdout.isatty() else _PIPED_WIDTH,
        highlight=False,
        markup=False,
        soft_wrap=False,
    )


def _wants_colour() -> bool:
    return (
        sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


def print_json(value: object) -> None:
    """For machines."""
    click.echo(json.dumps(value, indent=2))


def printable(value: object) -> object:
    """Without control characters: names of models, scripts and paths are their owners' own, and
    an escape sequence in one must not act on the terminal that it is shown on."""
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


def ask(command: str, arguments: Mapping[str, object] | None = None) -> dict[str, object]:
    """Ask the daemon; end the command with words and a status when that fails."""
    from pathlib import Path

    socket_path = Path(click.get_current_context().find_root().params["socket"])
    try:
        answer = request(command, arguments, socket_path)
    except ControlError as error:
        fail(str(error), exit_of(error))
    return cast("dict[str, object]", printable(answer))


def fail(message: str, status: Exit = Exit.FAILED) -> NoReturn:
    """Say what is wrong on stderr and end."""
    click.echo(f"vllmwall: {message}", err=True)
    sys.exit(status)
