"""Failures of a command, in one form for people and one for programs.

For people a message on stderr, and below it a hint with the remedy; under ``--json`` the same as an
object on stdout. The exit status is the same in both.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import NoReturn

import click

from vllmwall.api.errors import ControlError
from vllmwall.cli.exit_codes import ERRORS, Exit

_HINTS = {
    "not-running": "Start the daemon: systemctl start vllmwall",
    "internal": "This is a bug in vllmwall. Please report it with the traceback.",
}


@dataclass(frozen=True)
class ErrorBody:
    """``message`` says what is wrong and where, ``hint`` what to do (empty: nothing is known).

    ``code`` is stable; docs/reference/cli.md lists all codes with their exit statuses.
    """

    code: str
    message: str
    hint: str


@dataclass(frozen=True)
class ErrorAnswer:
    """The answer of any command under ``--json`` that failed."""

    error: ErrorBody


class Failure(click.ClickException):
    """The end of a command that failed, with the parts of an `ErrorBody`."""

    def __init__(self, message: str, code: str = "failed", hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


class NoSuchCommand(click.UsageError):
    """A command that does not exist, and the names that are like it."""

    def __init__(self, name: str, possibilities: list[str], ctx: click.Context) -> None:
        super().__init__(f"No such command '{name}'.", ctx)
        self.possibilities = possibilities


def fail(message: str, code: str = "failed", hint: str = "") -> NoReturn:
    """End the command with a message, the exit status of ``code`` and a hint."""
    raise Failure(message, code, hint)


def fail_as(error: ControlError) -> NoReturn:
    """End the command as a refused or unanswered request wants it."""
    raise Failure(error.message, error.code, error.hint) from error


def show_failure(error: Exception, *, as_json: bool) -> Exit:
    """Print an error that ended a command; the exit status that belongs to it."""
    body = _body(error)
    if body.code == "internal":
        import traceback

        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    if as_json:
        click.echo(json.dumps(asdict(ErrorAnswer(body))))
    else:
        click.echo(f"vllmwall: {body.message}", err=True)
        if body.hint:
            click.echo(f"  hint: {body.hint}", err=True)
    return ERRORS.get(body.code, Exit.FAILED)


def _body(error: Exception) -> ErrorBody:
    if isinstance(error, Failure):
        return ErrorBody(error.code, error.message, error.hint or _HINTS.get(error.code, ""))
    if isinstance(error, click.UsageError):
        return _usage(error)
    if isinstance(error, click.ClickException):
        return ErrorBody("failed", error.format_message(), "")
    if isinstance(error, click.Abort):
        return ErrorBody("failed", "interrupted", "")
    message = f"internal error: {type(error).__name__}: {error}"
    return ErrorBody("internal", message, _HINTS["internal"])


def _usage(error: click.UsageError) -> ErrorBody:
    """With the option or command that is most like a mistyped one, else with the help page."""
    message = error.format_message()
    if isinstance(error, click.NoSuchOption):
        message = f"No such option '{error.option_name}'."
    if isinstance(error, click.NoSuchOption | NoSuchCommand) and error.possibilities:
        return ErrorBody("usage", message, f"Did you mean '{error.possibilities[0]}'?")
    path = error.ctx.command_path if error.ctx else "vllmwall"
    return ErrorBody("usage", message, f"See: {path} --help")
