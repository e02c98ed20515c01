"""Commands that run and change the service: `daemon`, `reload`, `up` and `down`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vllmwall.api.changes import ChangeRequest, RemovedWalls
from vllmwall.api.commands import RELOAD, UP
from vllmwall.api.units import count
from vllmwall.cli.ask import ask, ask_if_running
from vllmwall.cli.command_line import Command, CommandLine
from vllmwall.cli.confirm import on_trial
from vllmwall.cli.drawing import Console
from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.parameters import config_option, confirm_option, force_option, only_option
from vllmwall.cli.ssh import ssh_connection
from vllmwall.cli.terminal import print_answer
from vllmwall.cli.without_daemon import failing_in_words, runtime_dir, take_down
from vllmwall.linux.places import RUNTIME_DIRECTORY, STATE_DIRECTORY

if TYPE_CHECKING:
    from vllmwall.api.status_answer import Status
    from vllmwall.engine.options import Options


@click.command(cls=Command)
@config_option
@click.option(
    "--runtime-dir",
    default=str(RUNTIME_DIRECTORY),
    show_default=True,
    help="Folder of socket, lock, state.",
)
@only_option
@click.option(
    "--state-dir",
    default=str(STATE_DIRECTORY),
    show_default=True,
    help="Folder of the wall for the next boot. With --only-namespace it is written only if this "
    "option is given.",
)
@click.option(
    "--log", type=click.Choice(["auto", "journal", "json", "console"]), help="Form of the log."
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Lowest level to log.",
)
@click.pass_obj
def daemon(
    line: CommandLine,
    *,
    config: str,
    runtime_dir: str,
    only_namespace: tuple[str, ...],
    state_dir: str,
    log: str | None,
    log_level: str | None,
) -> None:
    """Run the daemon until SIGTERM; the walls stay up after it.

    The daemon makes its control socket in the folder of --runtime-dir.
    """
    from vllmwall.engine.options import Options

    if line.socket != CommandLine().socket:
        raise click.UsageError("--socket names a running daemon; here use --runtime-dir")
    is_ours = not only_namespace or state_dir != str(STATE_DIRECTORY)
    state_file = Path(state_dir) / "boot.nft" if is_ours else None
    options = Options(Path(config), Path(runtime_dir), only_namespace, log, log_level, state_file)
    (line.begin or _run)(options)


def _run(options: Options) -> None:
    from vllmwall.config.reading import read
    from vllmwall.daemon.loop import run

    sys.exit(run(options, read(options.config).usable))


@click.command(cls=Command)
@confirm_option
@force_option
def reload(confirm: float | None, force: bool) -> None:
    """Reload the configuration.

    If it is invalid, the active one is unchanged.
    """
    with on_trial("reload", confirm) as token:
        answer = ask(RELOAD, ChangeRequest(ssh_connection(), force, token))
    _print_verdict(answer)


@click.command(cls=Command)
@config_option
@only_option
@confirm_option
@force_option
def up(config: str, only_namespace: tuple[str, ...], confirm: float | None, force: bool) -> None:
    """Put the walls up.

    Where no daemon runs, the walls are put up once, from the configuration file.
    """
    with on_trial("up", confirm, only_namespace) as token:
        request = ChangeRequest(ssh_connection(), force, token)
        answer = ask_if_running(UP, request)
        if answer is None:
            from vllmwall.api.without_daemon import up_once

            with failing_in_words():
                answer = up_once(Path(config), runtime_dir(), only_namespace, request)
    _print_verdict(answer)


@click.command(cls=Command)
@only_option
def down(only_namespace: tuple[str, ...]) -> None:
    """Remove every wall until `vllmwall up` or the next boot.

    Works without a daemon, with one that hangs, and with an invalid configuration.
    """
    print_answer(take_down(only_namespace), _draw_removed)


def _draw_removed(out: Console, answer: RemovedWalls) -> None:
    removed = len(answer.removed)
    what = f"Removed the wall in {count(removed, 'network namespace')}."
    out.print(what if removed else "No wall was active.", style="yellow")


def _print_verdict(answer: Status) -> None:
    print_answer(answer, _draw_verdict)
    sys.exit(Exit.OK if answer.safe else Exit.NOT_SAFE)


def _draw_verdict(out: Console, answer: Status) -> None:
    out.print(answer.verdict, style="green" if answer.safe else "bold red")
