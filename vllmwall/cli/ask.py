"""Questions to the daemon over its control socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from vllmwall.api.client import request
from vllmwall.api.errors import ControlError
from vllmwall.cli.command_line import common
from vllmwall.cli.failures import fail_as
from vllmwall.cli.terminal import printable


def ask(command: str, arguments: Mapping[str, object] | None = None) -> dict[str, object]:
    """The daemon's answer; a failure ends the command."""
    try:
        return put(command, arguments)
    except ControlError as error:
        fail_as(error)


def ask_if_running(
    command: str, arguments: Mapping[str, object] | None = None
) -> dict[str, object] | None:
    """The daemon's answer; None where no daemon runs. Any other failure ends the command."""
    try:
        return put(command, arguments)
    except ControlError as error:
        if error.code == "not-running":
            return None
        fail_as(error)


def put(command: str, arguments: Mapping[str, object] | None = None) -> dict[str, object]:
    """The daemon's answer, without control characters. Raises ControlError."""
    return cast("dict[str, object]", printable(request(command, arguments, common().socket)))
