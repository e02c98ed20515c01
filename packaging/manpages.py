"""Man pages and shell completions from the commands: ``python packaging/manpages.py DIRECTORY``.

Writes man/vllmwall*.1 and completions/{bash,zsh,fish}. The same source gives the same bytes: the
date is that of SOURCE_DATE_EPOCH, or none.
"""

from __future__ import annotations

import os
import sys
import time
from copy import copy
from pathlib import Path

import click
from click.shell_completion import get_completion_class
from click_man.core import write_man_pages

from vllmwall import __version__
from vllmwall.cli import command
from vllmwall.cli.command_line import COMMON, one_line

_SHELLS = {"bash": "vllmwall", "zsh": "_vllmwall", "fish": "vllmwall.fish"}


def write_all(folder: Path) -> None:
    """Everything below ``folder``. Raises OSError."""
    pages, completions = folder / "man", folder / "completions"
    pages.mkdir(parents=True, exist_ok=True)
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    date = time.strftime("%Y-%m-%d", time.gmtime(epoch))
    write_man_pages("vllmwall", whole(), version=__version__, target_dir=str(pages), date=date)
    for shell, file in _SHELLS.items():
        made = get_completion_class(shell)
        if made is None:
            raise LookupError(f"click knows no completion for {shell}")
        (completions / shell).mkdir(parents=True, exist_ok=True)
        source = made(command, {}, "vllmwall", "_VLLMWALL_COMPLETE").source()
        (completions / shell / file).write_text(source)


def whole() -> click.Group:
    """The command line with every command imported, as click-man wants it."""
    context = click.Context(command, info_name="vllmwall")
    found = {name: command.get_command(context, name) for name in command.list_commands(context)}
    commands = {name: _with_all(one) for name, one in found.items() if one and not one.hidden}
    params = [*command.params, *COMMON]
    return click.Group("vllmwall", commands, params=params, help=command.help)


def _with_all(one: click.Command) -> click.Command:
    """A copy with the common options, and a short help that click-man does not cut."""
    whole = copy(one)
    whole.params = [*one.params, *COMMON]
    whole.short_help = one_line(one)
    return whole


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
