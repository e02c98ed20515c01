"""`vllmwall learn`: watch who uses the internal ports, and propose the peers."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.follow import ticks
from vllmwall.cli.peers import Duration
from vllmwall.cli.terminal import ask, console, fail, print_json
from vllmwall.cli.units import count, how_long

if TYPE_CHECKING:
    from rich.console import Console

    from vllmwall.inspect.learn.proposal import Watching
    from vllmwall.inspect.learn.shape import LearnedSourceJson, LearnFactsJson, LearnJson
    from vllmwall.model import Network

_ROWS = 40


@click.command()
@click.option("--for", "seconds", type=Duration(), default="60s", show_default=True)
@click.option("--now", is_flag=True, help="Look once.")
@click.option("--exact", is_flag=True, help="Only what was seen; no network in its place.")
@click.option(
    "--write", "file", metavar="FILE", help="Write the proposal there; nothing else does."
)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def learn(seconds: float, now: bool, exact: bool, file: str | None, as_json: bool) -> None:
    """Watch who is connected to internal ports, and propose the peers as a diff.

    In audit mode those count, too, that the wall would have refused. Addresses are joined to a
    network when at least three, and half, of it were seen, and nobody in it shall stay out.
    Nothing is applied.
    """
    watching, facts, watched = _watch(0.0 if now else seconds)
    place = Path(file) if file else Path(facts["conf_d"]) / _file_name()
    old, text = _standing(place, must_be_readable=file is not None)
    answer = watching.answer(old, text, str(place), watched, exact=exact)
    if file and answer["text"]:
        _write(place, answer["text"])
    if as_json:
        print_json(answer)
    else:
        show(console(), answer, written=file is not None)


def _file_name() -> str:
    from vllmwall.inspect.learn.proposal import FILE_NAME

    return FILE_NAME


def _watch(seconds: float) -> tuple[Watching, LearnFactsJson, float]:
    """Look each second. Ctrl-C ends it early, and what was seen counts."""
    from vllmwall.inspect.learn.proposal import Watching

    watching, begun = Watching(), time.monotonic()
    facts = cast("LearnFactsJson", ask("learn"))
    watching.take(facts)
    if seconds and sys.stderr.isatty():
        click.echo(f"Watching for {how_long(seconds)}; Ctrl-C ends it early.", err=True)
    try:
        for _ in ticks() if seconds else ():
            facts = cast("LearnFactsJson", ask("learn"))
            watching.take(facts)
            if time.monotonic() - begun >= seconds:
                break
    except KeyboardInterrupt:
        pass
    return watching, facts, time.monotonic() - begun


def _standing(place: Path, *, must_be_readable: bool) -> tuple[tuple[Network, ...], str]:
    """What the file holds already; it is ours, or it is not there. What we may not read is as
    nothing where it is only shown."""
    from vllmwall.inspect.learn.proposal import MARK
    from vllmwall.networks.errors import PeerError
    from vllmwall.networks.saved import read_saved

    try:
        text = place.read_text()
        if not text.startswith(MARK):
            fail(f"{place} is none of ours: name another file", Exit.BAD_CONFIG)
        return read_saved(place), text
    except FileNotFoundError:
        return (), ""
    except (OSError, PeerError, UnicodeDecodeError) as error:
        if must_be_readable:
            fail(f"{place} stays as it is: {error}")
        return (), ""


def _write(place: Path, text: str) -> None:
    from vllmwall.linux.files import save_text

    try:
        save_text(place, text, 0o644)
    except OSError as error:
        fail(f"{place} cannot be written: {error.strerror or error}")


def show(out: Console, answer: LearnJson, *, written: bool) -> None:
    """Draw it for a person: who was seen, the diff, and what to do with it."""
    out.print(headline(answer), style="bold")
    for note in answer["notes"]:
        out.print(f"! {note}", style="yellow")
    told = [one for one in answer["sources"] if one["roles"]]
    if told:
        _table(out, told[:_ROWS])
    if len(told) > _ROWS:
        out.print(f"… and {len(told) - _ROWS} more (--json)", style="dim")
    if not answer["diff"]:
        return
    out.print()
    click.echo(answer["diff"], nl=False)
    out.print()
    if written:
        out.print(f"Written to {answer['file']}. It counts from now on with:")
        out.print("  vllmwall reload", style="bold")
    else:
        out.print("Nothing was applied. To use it, run this again with")
        out.print(f"  --write {answer['file']}", style="bold", soft_wrap=True)


def headline(answer: LearnJson) -> str:
    """How much was seen, and what follows."""
    decisions = [one["decision"] for one in answer["sources"] if one["roles"]]
    api = len(answer["sources"]) - len(decisions)
    parts = [
        f"{decisions.count('proposed')} proposed",
        f"{decisions.count('peer')} known as peers",
        f"{decisions.count('left out')} left out",
    ]
    watched = "Looked once" if answer["seconds"] < 1 else f"Watched {how_long(answer['seconds'])}"
    head = f"{watched}, mode {answer['mode']}: {count(len(decisions), 'source')}"
    others = f"; {count(api, 'other')} need no entry" if api else ""
    return f"{head} at internal ports: {', '.join(parts)}{others}"


def _table(out: Console, sources: list[LearnedSourceJson]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("SOURCE", overflow="fold", min_width=15)
    table.add_column("ROLES", overflow="fold")
    for title in ("CONNS", "PACKETS"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("WHY", overflow="fold")
    for one in sources:
        mark = {"proposed": "+", "peer": "="}.get(one["decision"], "-")
        public = "\n  public" if one["public"] else ""
        roles, why = ", ".join(one["roles"]), one["why"]
        numbers = (str(one["connections"]), str(one["packets"]))
        table.add_row(f"{one['address']}{public}", roles, *numbers, mark, why)
    out.print(table)
