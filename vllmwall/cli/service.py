"""Commands that start, check and change the service: daemon, check, reload, up, down."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from vllmwall.api.change_shapes import CHANGES_VERSION
from vllmwall.cli.confirm import confirm_option, on_trial
from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.ssh import ssh_connection
from vllmwall.cli.terminal import ask, console, print_json
from vllmwall.cli.without_daemon import (
    CONFIG,
    asked,
    config_option,
    ended_a_hung_daemon,
    errors_in_words,
    only_option,
    runtime_dir,
)

if TYPE_CHECKING:
    from vllmwall.api.shapes import StatusJson
    from vllmwall.engine.options import Options

force_option = click.option(
    "--force", is_flag=True, help="Even if it would end the ssh connection that asks."
)
RUNTIME_DIR = "/run/vllmwall"
STATE_DIR = "/var/lib/vllmwall"


@click.command()
@config_option
@click.option("--runtime-dir", default=RUNTIME_DIR, show_default=True, help="Socket, lock, state.")
@only_option
@click.option(
    "--state-dir",
    default=STATE_DIR,
    show_default=True,
    help="Where the wall for the next boot is kept; with --only-namespace only if given.",
)
@click.option("--log", type=click.Choice(["auto", "journal", "json", "console"]))
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.pass_obj
def daemon(
    begin: Callable[[Options], None] | None,
    *,
    config: str,
    runtime_dir: str,
    only_namespace: tuple[str, ...],
    state_dir: str,
    log: str | None,
    log_level: str | None,
) -> None:
    """Guard this node until SIGTERM. The walls stay up when it ends."""
    from vllmwall.engine.options import Options

    is_ours = not only_namespace or state_dir != STATE_DIR
    state_file = Path(state_dir) / "boot.nft" if is_ours else None
    options = Options(Path(config), Path(runtime_dir), only_namespace, log, log_level, state_file)
    (begin or _run)(options)


def _run(options: Options) -> None:
    from vllmwall.config.reading import Reading

    reading = Reading(options.config)  # while we import the rest
    from vllmwall.daemon.loop import run

    sys.exit(run(options, reading.settings))


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
            print_json({"version": CHANGES_VERSION, "ok": False, "files": [], "problems": problems})
        else:
            for problem in error.problems:
                console().print(str(problem), style="red")
        sys.exit(Exit.BAD_CONFIG)
    files = [str(file) for file in config.files]
    if as_json:
        print_json({"version": CHANGES_VERSION, "ok": True, "files": files, "problems": []})
    else:
        console().print(f"Good: {', '.join(files) or f'{path} is not there; defaults'}")


@click.command()
@confirm_option
@force_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def reload(confirm: float | None, force: bool, as_json: bool) -> None:
    """Take the configuration anew; a bad one changes nothing."""
    asker = {"ssh": ssh_connection(), "force": force}
    with on_trial("reload", confirm, as_json=as_json) as trial:
        answer = cast("StatusJson", ask("reload", {**trial, **asker}))
    _verdict(answer, as_json)


@click.command()
@config_option
@only_option
@confirm_option
@force_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def up(
    *,
    config: str,
    only_namespace: tuple[str, ...],
    confirm: float | None,
    force: bool,
    as_json: bool,
) -> None:
    """Put the walls up: through the daemon, or once and by itself where none runs."""
    asker = {"ssh": ssh_connection(), "force": force}
    with on_trial("up", confirm, only_namespace, as_json=as_json) as trial:
        answer = asked("up", {**trial, **asker})
        if answer is None:
            from vllmwall.api.without_daemon import up_once

            with errors_in_words():
                answer = dict(up_once(Path(config), runtime_dir(), only_namespace, asker))
    _verdict(cast("StatusJson", answer), as_json)


@click.command()
@only_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def down(only_namespace: tuple[str, ...], as_json: bool) -> None:
    """Take every wall of ours down, until `vllmwall up` or the next boot.

    Works without a daemon, with one that hangs, and with a broken configuration.
    """
    answer = None if ended_a_hung_daemon() else asked("down")
    if answer is None:
        from vllmwall.api.without_daemon import down_once

        with errors_in_words():
            answer = {
                "version": CHANGES_VERSION,
                "removed": down_once(runtime_dir(), only_namespace),
            }
    if as_json:
        print_json(answer)
        return
    removed = cast("list[int]", answer["removed"])
    what = f"taken down in {len(removed)} network namespace{'' if len(removed) == 1 else 's'}"
    console().print(f"The wall is {what if removed else 'down: none stood'}.", style="yellow")


def _verdict(answer: StatusJson, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        console().print(answer["verdict"], style="green" if answer["safe"] else "bold red")
    sys.exit(Exit.OK if answer["safe"] else Exit.NOT_SAFE)
