"""The command line's manners: common options before and after a command, suggestions, failures.

A group imports a command's module only when that command is used, so that `vllmwall status` pays
for nothing else. click is used and not typer: it takes half the time to import.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import click

from vllmwall.cli.failures import NoSuchCommand, show_failure
from vllmwall.linux.places import CONTROL_SOCKET

if TYPE_CHECKING:
    from vllmwall.engine.options import Options

_SOCKET_VARIABLE = "VLLMWALL_SOCKET"


def _usual_socket() -> Path:
    return Path(os.environ.get(_SOCKET_VARIABLE) or CONTROL_SOCKET)


@dataclass
class CommandLine:
    """The values of the options that every command has, before or after its name.

    ``wants_json`` is ``as_json`` for a line that could not be parsed. ``begin`` takes the daemon's
    options where they are only parsed, not run.
    """

    as_json: bool = False
    wants_json: bool = False
    socket: Path = field(default_factory=_usual_socket)
    color: str = "auto"
    begin: Callable[[Options], None] | None = None


def common() -> CommandLine:
    """The common options of the command that runs."""
    return click.get_current_context().ensure_object(CommandLine)


def _keep(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    if value:
        setattr(ctx.ensure_object(CommandLine), parameter.name or "", value)


COMMON = (
    click.Option(
        ["--json", "as_json"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_keep,
        help="Print JSON, also for errors.",
    ),
    click.Option(
        ["--socket"],
        type=click.Path(path_type=Path),
        metavar="PATH",
        is_eager=True,
        expose_value=False,
        callback=_keep,
        help=f"Control socket of the daemon. [default: ${_SOCKET_VARIABLE} or {CONTROL_SOCKET}]",
    ),
    click.Option(
        ["--color"],
        type=click.Choice(["auto", "always", "never"]),
        metavar="WHEN",
        is_eager=True,
        expose_value=False,
        callback=_keep,
        help="auto, always or never. auto: on a terminal, unless NO_COLOR is set.",
    ),
)


class Command(click.Command):
    """A command with the common options."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Its own, then those that every command has."""
        return [*super().get_params(ctx), *COMMON]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click; an error in the line is printed as JSON where the line asks for JSON."""
        if "--json" in takewhile(lambda word: self.is_own(word, ctx), args):
            ctx.ensure_object(CommandLine).wants_json = True
        return super().parse_args(ctx, args)

    def is_own(self, word: str, ctx: click.Context) -> bool:
        """True for words that can be options of this command, not of a job that `run` starts."""
        return word != "--" and (ctx.allow_interspersed_args or word.startswith("-"))


class Group(Command, click.Group):
    """Commands with suggestions for mistyped names, and one-line helps that are never cut."""

    command_class = Command
    titles: ClassVar[Mapping[str, Sequence[str]]] = {}
    """The commands that help shows, by title, where there is more than one."""

    def is_own(self, word: str, ctx: click.Context) -> bool:
        """True for the options of its commands, too."""
        return word not in ("--", "run")

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click; raises NoSuchCommand with the names that are like it."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from difflib import get_close_matches

            raise NoSuchCommand(args[0], get_close_matches(args[0], self.list_commands(ctx)), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each title with its commands."""
        names = self.list_commands(ctx)
        width = max(map(len, names))
        for title, part in (self.titles or {"Commands": names}).items():
            found = {name: self.get_command(ctx, name) for name in part}
            with formatter.section(title):
                formatter.write_dl(
                    [(name.ljust(width), one_line(one)) for name, one in found.items() if one]
                )


class LazyGroup(Group):
    """The root of the command line; ends the program with the status of its command."""

    modules: ClassVar[Mapping[str, str]] = {}
    """The modules of commands that are not named after their module, hidden ones included."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command that help shows."""
        return [name for part in self.titles.values() for name in part]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, with its module imported; None: no command has this name."""
        if cmd_name not in {*self.list_commands(ctx), *self.modules}:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(import_module(f"vllmwall.cli.{self.modules.get(cmd_name, name)}"), name)
        return command if isinstance(command, click.Command) else None

    def main(  # type: ignore[override]  # click has an overload for each standalone_mode
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: object,
    ) -> object:
        """As click's; a failure is printed in the one form that all commands share."""
        line = extra.setdefault("obj", CommandLine())
        begin: Callable[[], object] = partial(
            super().main, args, prog_name, complete_var, False, windows_expand_args, **extra
        )
        if not standalone_mode or not isinstance(line, CommandLine):
            return begin()
        try:
            status: object = begin()
        except click.UsageError as error:
            status = show_failure(error, as_json=line.as_json or line.wants_json)
        except Exception as error:  # whatever it is: a program that reads JSON gets JSON
            status = show_failure(error, as_json=line.as_json)
        sys.exit(status if isinstance(status, int) else 0)


def one_line(command: click.Command) -> str:
    """The first sentence of a command's help."""
    return (command.help or "").partition("\n")[0].rstrip(".")
