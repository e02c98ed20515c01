"""Commands that work with a daemon and also without one."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from vllmwall.api.changes import RemovedWalls
from vllmwall.api.client import listening_pid, request
from vllmwall.api.commands import DOWN, STATUS
from vllmwall.api.errors import ControlError, NoArguments
from vllmwall.cli.ask import ask_if_running
from vllmwall.cli.command_line import common
from vllmwall.cli.failures import fail, fail_as

_PATIENCE_SECONDS = 5.0


def runtime_dir() -> Path:
    """The folder of the control socket, where a daemon keeps its state."""
    return common().socket.parent


def take_down(only: tuple[str, ...]) -> RemovedWalls:
    """Remove every wall through the daemon; without it where none runs or the daemon hangs."""
    answer = None if _killed_a_hung_daemon() else ask_if_running(DOWN, NoArguments())
    if answer is not None:
        return answer
    from vllmwall.api.without_daemon import down_once

    with failing_in_words():
        return RemovedWalls(removed=tuple(down_once(runtime_dir(), only)))


def _killed_a_hung_daemon() -> bool:
    """Kill the daemon if it accepts connections and answers none: only then are its tables free."""
    socket_path = common().socket
    try:
        request(STATUS.name, None, socket_path, _PATIENCE_SECONDS)
    except ControlError as error:
        if isinstance(error.__cause__, TimeoutError) and (pid := listening_pid(socket_path)):
            click.echo(f"vllmwall: killing the daemon (pid {pid}): it does not answer", err=True)
            _kill(pid)
            return True
    return False


def _kill(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
        signal.pidfd_send_signal(process, signal.SIGKILL)
        select.select([process], [], [], _PATIENCE_SECONDS)
        os.close(process)
    except ProcessLookupError:
        return
    except PermissionError as error:
        fail(f"the daemon (pid {pid}) cannot be killed: {error}", "denied", "Run this as root.")


@contextmanager
def failing_in_words() -> Iterator[None]:
    """End the command with a message and a hint for the errors of work without a daemon."""
    from vllmwall.config import ConfigError
    from vllmwall.enforce.backend import EnforceError

    try:
        yield
    except ConfigError as error:
        message = f"the configuration is invalid; the active walls are unchanged\n{error}"
        fail(message, "config", "Fix the lines above, then run: vllmwall check")
    except PermissionError as error:
        fail(str(error), "denied", "Run this as root: no daemon answers that could do it.")
    except ControlError as error:
        fail_as(error)
    except (OSError, EnforceError) as error:
        fail(str(error))
