"""What commands share that work with a daemon and, by themselves, without one."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import click

from vllmwall.api.client import listening_pid, request
from vllmwall.api.errors import ControlError
from vllmwall.cli.exit_codes import Exit, exit_of
from vllmwall.cli.terminal import fail, printable

_PATIENCE_SECONDS = 5.0
CONFIG = "/etc/vllmwall/vllmwall.toml"

config_option = click.option(
    "--config", default=CONFIG, show_default=True, help="Configuration file."
)
only_option = click.option(
    "--only-namespace",
    multiple=True,
    metavar="NAME",
    help="Only this network namespace (a name under /run/netns or a path); repeatable.",
)


def asked(command: str, arguments: Mapping[str, object] | None = None) -> dict[str, object] | None:
    """The daemon's answer; None when no daemon runs."""
    socket_path = Path(click.get_current_context().find_root().params["socket"])
    try:
        return cast("dict[str, object]", printable(request(command, arguments, socket_path)))
    except ControlError as error:
        if error.code == "not-running":
            return None
        fail(str(error), exit_of(error))


def ended_a_hung_daemon() -> bool:
    """Kill the daemon if it takes connections and answers none; only its end frees its tables."""
    socket_path = Path(click.get_current_context().find_root().params["socket"])
    try:
        request("status", None, socket_path, _PATIENCE_SECONDS)
    except ControlError as error:
        if isinstance(error.__cause__, TimeoutError) and (pid := listening_pid(socket_path)):
            click.echo(f"vllmwall: the daemon (pid {pid}) does not answer: it is killed", err=True)
            _kill(pid)
            return True
    return False


def _kill(pid: int) -> None:
    try:
        ended = os.pidfd_open(pid)
        signal.pidfd_send_signal(ended, signal.SIGKILL)
        select.select([ended], [], [], _PATIENCE_SECONDS)
        os.close(ended)
    except ProcessLookupError:
        return
    except PermissionError as error:
        fail(f"{error}: only root can end pid {pid}", Exit.DENIED)


@contextmanager
def errors_in_words() -> Iterator[None]:
    """End the command with words and a status for what can go wrong without a daemon."""
    from vllmwall.config import ConfigError
    from vllmwall.enforce.backend import EnforceError

    try:
        yield
    except ConfigError as error:
        fail(f"the configuration cannot be used; what stands stays\n{error}", Exit.BAD_CONFIG)
    except PermissionError as error:
        fail(f"{error}; without a daemon only root can do this", Exit.DENIED)
    except (ControlError, OSError, EnforceError) as error:
        fail(str(error))


def runtime_dir() -> Path:
    """Beside the control socket, where a daemon would keep its things."""
    return Path(click.get_current_context().find_root().params["socket"]).parent
