"""`vllmwall learn`: peers proposed from the connections to internal ports."""

from __future__ import annotations

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vllmwall.api.commands import LEARN
from vllmwall.api.errors import NoArguments
from vllmwall.api.units import count, how_long
from vllmwall.cli.ask import ask
from vllmwall.cli.command_line import Command
from vllmwall.cli.drawing import Column, Console, Table
from vllmwall.cli.failures import fail
from vllmwall.cli.follow import ticks
from vllmwall.cli.parameters import Duration
from vllmwall.cli.terminal import print_answer

if TYPE_CHECKING:
    from vllmwall.api.learn import LearnFacts
    from vllmwall.inspect.learn.proposal import LearnedSource, Proposal, Watching
    from vllmwall.model import Network

_ROWS = 40


@click.command(cls=Command)
@click.option(
    "--for", "seconds", type=Duration(), default="60s", show_default=True, help="Watch this long."
)
@click.option("--now", is_flag=True, help="Look once instead.")
@click.option("--exact", is_flag=True, help="Propose only addresses that were seen.")
@click.option(
    "--write",
    "file",
    metavar="FILE",
    help="Write the proposal to FILE. Nothing is written without this option.",
)
def learn(seconds: float, now: bool, exact: bool, file: str | None) -> None:
    """Propose peers from the connections to internal ports.

    In audit mode, sources that would have been blocked are included. Addresses are merged into a
    network if at least three of them, and half of the network, were seen and none of it must stay
    blocked. The proposal is printed as a diff; nothing is applied.
    """
    watching, facts, watched = _watch(0.0 if now else seconds)
    place = Path(file) if file else Path(facts.conf_d) / _file_name()
    old, text = _present(place, must_be_readable=file is not None)
    answer = watching.answer(old, text, str(place), watched, exact=exact)
    if file and answer.text:
        _write(place, answer.text)
    print_answer(answer, partial(_draw, written=file is not None))


def _file_name() -> str:
    from vllmwall.inspect.learn.proposal import FILE_NAME

    return FILE_NAME


def _watch(seconds: float) -> tuple[Watching, LearnFacts, float]:
    """Ask each second. Ctrl-C ends the watch early; what was seen counts."""
    from vllmwall.inspect.learn.proposal import Watching

    watching, begun = Watching(), time.monotonic()
    facts = ask(LEARN, NoArguments())
    watching.take(facts)
    if seconds and sys.stderr.isatty():
        click.echo(f"Watching for {how_long(seconds)}. Press Ctrl-C to stop early.", err=True)
    try:
        for _ in ticks() if seconds else ():
            facts = ask(LEARN, NoArguments())
            watching.take(facts)
            if time.monotonic() - begun >= seconds:
                break
    except KeyboardInterrupt:
        pass
    return watching, facts, time.monotonic() - begun


def _present(place: Path, *, must_be_readable: bool) -> tuple[tuple[Network, ...], str]:
    """The networks and the text of the file: none where it does not exist. A file that cannot be
    read is an error only where it is to be written."""
    from vllmwall.inspect.learn.proposal import MARK
    from vllmwall.networks.saved import read_saved
    from vllmwall.networks.sources import PeerError

    try:
        text = place.read_text()
        if not text.startswith(MARK):
            fail(f"{place} was not written by learn", "usage", "Name another file.")
        return read_saved(place), text
    except FileNotFoundError:
        return (), ""
    except (OSError, PeerError, UnicodeDecodeError) as error:
        if must_be_readable:
            fail(f"{place} is left unchanged: {error}")
        return (), ""


def _write(place: Path, text: str) -> None:
    from vllmwall.linux.files import save_text

    try:
        save_text(place, text, 0o644)
    except OSError as error:
        fail(f"{place} cannot be written: {error.strerror or error}")


def _draw(out: Console, answer: Proposal, *, written: bool) -> None:
    """The sources, the diff, and how to apply it."""
    out.print(_headline(answer), style="bold")
    for note in answer.notes:
        out.print(f"! {note}", style="yellow")
    internal = [one for one in answer.sources if one.roles]
    if internal:
        out.print(_table(internal[:_ROWS]))
    if len(internal) > _ROWS:
        out.print(f"… and {len(internal) - _ROWS} more (--json)", style="dim")
    if not answer.diff:
        return
    out.print()
    click.echo(answer.diff, nl=False)
    out.print()
    if written:
        out.print(f"Written to {answer.file}. To apply it:")
        out.print("  vllmwall reload", style="bold")
    else:
        out.print("Nothing was applied. To write the proposal, run this again with")
        out.print(f"  --write {answer.file}", style="bold", soft_wrap=True)


def _headline(answer: Proposal) -> str:
    decisions = [one.decision for one in answer.sources if one.roles]
    api = len(answer.sources) - len(decisions)
    parts = [
        f"{decisions.count('proposed')} proposed",
        f"{decisions.count('peer')} known as peers",
        f"{decisions.count('left out')} left out",
    ]
    watched = "Looked once" if answer.seconds < 1 else f"Watched {how_long(answer.seconds)}"
    head = f"{watched}, mode {answer.mode}: {count(len(decisions), 'source')}"
    verb = "needs" if api == 1 else "need"
    others = f"; {count(api, 'other')} {verb} no entry" if api else ""
    return f"{head} at internal ports: {', '.join(parts)}{others}"


def _table(sources: list[LearnedSource]) -> Table:
    columns = (
        Column("SOURCE", width=15),
        Column("ROLES"),
        Column("CONNS", "whole", right=True),
        Column("PACKETS", "whole", right=True),
        Column("", "whole"),
        Column("WHY"),
    )
    return Table(columns, map(_row, sources))


def _row(one: LearnedSource) -> tuple[str, ...]:
    return (
        one.address + ("\n  public" if one.public else ""),
        ", ".join(one.roles),
        str(one.connections),
        str(one.packets),
        {"proposed": "+", "peer": "="}.get(one.decision, "-"),
        one.why,
    )
