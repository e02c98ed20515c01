"""Changes that are undone unless they are confirmed: --confirm, `confirm` and `rollback`."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from vllmwall.api.changes import Confirmed
from vllmwall.api.client import request
from vllmwall.api.commands import CONFIRM, ROLLBACK
from vllmwall.api.errors import ControlError, NoArguments
from vllmwall.cli.ask import ask_if_running
from vllmwall.cli.command_line import Command, common
from vllmwall.cli.drawing import Console
from vllmwall.cli.failures import fail
from vllmwall.cli.parameters import only_option
from vllmwall.cli.terminal import print_answer, print_json
from vllmwall.cli.without_daemon import failing_in_words, runtime_dir, take_down
from vllmwall.engine.trial import Unconfirmed, forget, note, noted, wait_apart

_PATIENCE_SECONDS = 3.0
_ROLLBACK_SECONDS = 60.0


@contextmanager
def on_trial(what: str, seconds: float | None, only: tuple[str, ...] = ()) -> Iterator[str]:
    """Undo the change inside after ``seconds`` unless it is confirmed; None: never.

    Gives the token of the change; empty: it is not on trial. The process that undoes it is
    started before the change is made.
    """
    if seconds is None:
        yield ""
        return
    directory = runtime_dir()
    with failing_in_words():
        made = note(directory, what, time.time() + seconds)
        command = ["--socket", str(common().socket), "rollback", made.token]
        command += [word for one in only for word in ("--only-namespace", one)]
        waiter = wait_apart(command, seconds)
    try:
        yield made.token
    except BaseException:  # refused: nothing was changed, so there is nothing to undo
        forget(directory)
        raise
    if not common().as_json:
        _ask_to_confirm(made, waiter)


@click.command(cls=Command)
def confirm() -> None:
    """Keep a change that was made with --confirm.

    Without this, `reload --confirm` and `up --confirm` are undone when their time is over.
    """
    print_answer(ask_if_running(CONFIRM, NoArguments()) or _confirm_here(), _draw)


def _draw(out: Console, answer: Confirmed) -> None:
    out.print(f"Confirmed: {answer.confirmed} stays.", style="green")


@click.command(cls=Command, hidden=True)
@click.argument("token")
@click.option("--after", type=float, default=0.0)
@only_option
def rollback(token: str, after: float, only_namespace: tuple[str, ...]) -> None:
    """Undo the change with TOKEN, if it is not confirmed. Started by --confirm."""
    time.sleep(after)
    waiting = noted(runtime_dir())
    if waiting is None or waiting.token not in (token, ""):
        return
    give_up = time.monotonic() + _ROLLBACK_SECONDS
    while not _asked_to_roll_back(waiting):  # no daemon, or one that hangs
        try:
            removed = take_down(only_namespace)  # open is better than locked out
        except click.ClickException:  # a daemon that starts now has the tables: ask it again
            if time.monotonic() > give_up:
                raise
            time.sleep(0.5)
            continue
        forget(runtime_dir())
        print_json(removed)
        return


def _asked_to_roll_back(waiting: Unconfirmed) -> bool:
    try:
        request(ROLLBACK.name, {"token": waiting.token}, common().socket, _PATIENCE_SECONDS)
    except ControlError:
        return False
    return True


def _ask_to_confirm(made: Unconfirmed, waiter: str) -> None:
    left = made.until - time.time()
    click.echo(
        f"On trial: {waiter} undoes this in {left:.0f} s. If a new SSH connection still works,\n"
        "keep the change with: vllmwall confirm",
        err=True,
    )
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    click.echo("Or press Enter here to keep it: ", err=True, nl=False)
    if select.select([sys.stdin], [], [], max(0.0, left))[0] and sys.stdin.readline():
        answer = ask_if_running(CONFIRM, NoArguments()) or _confirm_here()
        click.echo(f"Confirmed: {answer.confirmed} stays.", err=True)
    else:
        click.echo("\nNot confirmed: the change is undone.", err=True)


def _confirm_here() -> Confirmed:
    with failing_in_words():
        waiting = noted(runtime_dir())
        if waiting is None:
            fail("no change is waiting: it was confirmed, or its time is over")
        forget(runtime_dir())
        return Confirmed(confirmed=waiting.what)
