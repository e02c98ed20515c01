"""What commands share that work with a daemon and, by themselves, without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import click

from vllmwall.cli.exits import Exit, exit_of
from vllmwall.cli.terminal import fail, printable
from vllmwall.control import ControlError, request

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


def asked(command: str) -> dict[str, object] | None:
    """The daemon's answer; None when no daemon runs."""
    socket_path = Path(click.get_current_context().find_root().params["socket"])
    try:
        return cast("dict[str, object]", printable(request(command, None, socket_path)))
    except ControlError as error:
        if error.code == "not-running":
            return None
        fail(str(error), exit_of(error))


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
    except (OSError, EnforceError) as error:
        fail(str(error))


def runtime_dir() -> Path:
    """Beside the control socket, where a daemon would keep its things."""
    return Path(click.get_current_context().find_root().params["socket"]).parent
