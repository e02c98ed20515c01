"""Changes that take themselves back unless somebody confirms them: --confirm, confirm, rollback."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.peers import Duration
from vllmwall.cli.terminal import console, fail, print_json
from vllmwall.cli.without_daemon import asked, errors_in_words, only_option, runtime_dir
from vllmwall.engine.trial import Unconfirmed, forget, note, noted, wait_apart

confirm_option = click.option(
    "--confirm",
    type=Duration(),
    metavar="DURATION",
    help="Take it back unless `vllmwall confirm` comes so soon, e.g. 60s.",
)


@contextmanager
def on_trial(
    what: str, seconds: float | None, only: tuple[str, ...] = (), *, as_json: bool
) -> Iterator[Mapping[str, object]]:
    """Have the change inside taken back in ``seconds``, unless confirmed; None: it stays.

    What takes it back waits already when the change is made.
    """
    if seconds is None:
        yield {}
        return
    directory = runtime_dir()
    with errors_in_words():
        made = note(directory, what, time.time() + seconds)
        command = ["--socket", str(_socket()), "rollback", made.token]
        command += [word for one in only for word in ("--only-namespace", one)]
        who = wait_apart(command, seconds)
    try:
        yield {"unconfirmed": made.token}
    except BaseException:  # refused: nothing was changed, so nothing is taken back
        forget(directory)
        raise
    if not as_json:
        _ask_to_confirm(made, who)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def confirm(as_json: bool) -> None:
    """Keep the change that `reload --confirm` or `up --confirm` made."""
    answer = asked("confirm")
    if answer is None:
        answer = _confirm_here()
    if as_json:
        print_json(answer)
    else:
        console().print(f"Confirmed: {answer['confirmed']} stays.", style="green")


@click.command(hidden=True)
@click.argument("token")
@click.option("--after", type=float, default=0.0)
@only_option
def rollback(token: str, after: float, only_namespace: tuple[str, ...]) -> None:
    """Take back the change with TOKEN, if nobody has confirmed it. Started by --confirm."""
    from vllmwall.api.client import request
    from vllmwall.api.errors import ControlError

    time.sleep(after)
    waiting = noted(runtime_dir())
    if waiting is None or waiting.token not in (token, ""):
        return
    try:
        request("rollback", {"token": waiting.token}, _socket(), timeout=3)
    except ControlError:  # no daemon, or one that hangs: open is better than locked out
        from vllmwall.cli.service import down

        forget(runtime_dir())
        click.get_current_context().invoke(down, only_namespace=only_namespace, as_json=True)


def _ask_to_confirm(made: Unconfirmed, who: str) -> None:
    left = made.until - time.time()
    click.echo(
        f"On trial for {left:.0f} s; then {who} takes it back. If a new ssh connection still\n"
        "gets through, keep it with: vllmwall confirm",
        err=True,
    )
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    click.echo("Or press Enter here to keep it: ", err=True, nl=False)
    if select.select([sys.stdin], [], [], max(0.0, left))[0] and sys.stdin.readline():
        answer = asked("confirm") or _confirm_here()
        click.echo(f"Confirmed: {answer['confirmed']} stays.", err=True)
    else:
        click.echo("\nNot confirmed: it is taken back.", err=True)


def _confirm_here() -> dict[str, object]:
    with errors_in_words():
        waiting = noted(runtime_dir())
        if waiting is None:
            fail("nothing waits to be confirmed: it was, or its time is over", Exit.FAILED)
        forget(runtime_dir())
        return {"version": 1, "confirmed": waiting.what}


def _socket() -> Path:
    return Path(click.get_current_context().find_root().params["socket"])
