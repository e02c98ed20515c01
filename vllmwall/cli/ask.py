"""Questions to the daemon over its control socket, typed by the table of commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from vllmwall.api.client import request
from vllmwall.api.errors import ControlError
from vllmwall.cli.command_line import common
from vllmwall.cli.failures import fail_as
from vllmwall.cli.terminal import printable
from vllmwall.linux.wire import decode, encode

if TYPE_CHECKING:
    from vllmwall.api.commands import Command
    from vllmwall.api.errors import Json

Q = TypeVar("Q")
A = TypeVar("A")
_OTHER_VERSION = "Restart the daemon: it may be of another version."


def ask(command: Command[Q, A], question: Q) -> A:
    """The daemon's answer; a failure ends the command."""
    try:
        return put(command, question)
    except ControlError as error:
        fail_as(error)


def ask_if_running(command: Command[Q, A], question: Q) -> A | None:
    """The daemon's answer; None where no daemon runs. Any other failure ends the command."""
    try:
        return put(command, question)
    except ControlError as error:
        if error.code == "not-running":
            return None
        fail_as(error)


def put(command: Command[Q, A], question: Q) -> A:
    """The daemon's answer, without control characters. Raises ControlError."""
    arguments = cast("Json", encode(question))
    found = printable(request(command.name, arguments, common().socket))
    try:
        return decode(command.answer_type, found)
    except ValueError as error:
        message = f"the daemon's answer to {command.name} cannot be read: {error}"
        raise ControlError("failed", message, _OTHER_VERSION) from error
