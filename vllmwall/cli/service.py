"""Commands that start, check and change the service: daemon, check, reload, up, down."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from vllmwall.cli.exits import Exit, exit_of
from vllmwall.cli.terminal import ask, console, fail, print_json
from vllmwall.control import ControlError, request

if TYPE_CHECKING:
    from vllmwall.report.shapes import StatusJson

CONFIG = "/etc/vllmwall/vllmwall.toml"
RUNTIME_DIR = "/run/vllmwall"
_config = click.option("--config", default=CONFIG, show_default=True, help="Configuration file.")


_only = click.option(
    "--only-namespace",
    multiple=True,
    metavar="NAME",
    help="Only this network namespace (a name under /run/netns or a path); repeatable.",
)


@click.command()
@_config
@click.option("--runtime-dir", default=RUNTIME_DIR, show_default=True, help="Socket, lock, state.")
@_only
@click.option("--log", type=click.Choice(["auto", "journal", "json", "console"]))
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
def daemon(
    config: str,
    runtime_dir: str,
    only_namespace: tuple[str, ...],
    log: str | None,
    log_level: str | None,
) -> None:
    """Guard this node until SIGTERM. The walls stay up when it ends."""
    from vllmwall.daemon import Options, run

    options = Options(Path(config), Path(runtime_dir), only_namespace, log, log_level)
    sys.exit(run(options))


@click.command()
@click.argument("path", default=CONFIG)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def check(path: str, as_json: bool) -> None:
    """Validate the configuration at PATH (and conf.d beside it) without touching anything."""
    from vllmwall.config import ConfigError, load

    try:
        config = load(Path(path))
    except ConfigError as error:
        if as_json:
            fields = ("file", "line", "key", "message")
            problems = [{key: getattr(one, key) for key in fields} for one in error.problems]
            print_json({"ok": False, "problems": problems})
        else:
            for problem in error.problems:
                console().print(str(problem), style="red")
        sys.exit(Exit.BAD_CONFIG)
    files = [str(file) for file in config.files]
    if as_json:
        print_json({"ok": True, "files": files, "problems": []})
    else:
        console().print(f"Good: {', '.join(files) or f'{path} is not there; defaults'}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def reload(as_json: bool) -> None:
    """Take the configuration anew; a bad one changes nothing."""
    _verdict(cast("StatusJson", ask("reload")), as_json)


@click.command()
@_config
@_only
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def up(config: str, only_namespace: tuple[str, ...], as_json: bool) -> None:
    """Put the walls up: through the daemon, or once and by itself where none runs."""
    answer = _asked("up")
    if answer is None:
        from vllmwall.once import up_once

        with _errors_in_words():
            answer = dict(up_once(Path(config), _runtime_dir(), only_namespace))
    _verdict(cast("StatusJson", answer), as_json)


@click.command()
@_only
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def down(only_namespace: tuple[str, ...], as_json: bool) -> None:
    """Take every wall of ours down, until `vllmwall up` or the next boot.

    Works without a daemon and with a broken configuration.
    """
    answer = _asked("down")
    if answer is None:
        from vllmwall.once import down_once

        with _errors_in_words():
            answer = {"removed": down_once(_runtime_dir(), only_namespace)}
    if as_json:
        print_json(answer)
        return
    removed = cast("list[int]", answer["removed"])
    what = f"taken down in {len(removed)} network namespace{'' if len(removed) == 1 else 's'}"
    console().print(f"The wall is {what if removed else 'down: none stood'}.", style="yellow")


@contextmanager
def _errors_in_words() -> Iterator[None]:
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


def _runtime_dir() -> Path:
    """Beside the control socket, where a daemon would keep its things."""
    return Path(click.get_current_context().find_root().params["socket"]).parent


def _asked(command: str) -> dict[str, object] | None:
    """The daemon's answer; None when no daemon runs."""
    socket_path = Path(click.get_current_context().find_root().params["socket"])
    try:
        return request(command, None, socket_path)
    except ControlError as error:
        if error.code == "not-running":
            return None
        fail(str(error), exit_of(error))


def _verdict(answer: StatusJson, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        console().print(answer["verdict"], style="green" if answer["safe"] else "bold red")
    sys.exit(Exit.OK if answer["safe"] else Exit.NOT_SAFE)
