"""`vllmwall events`: the newest events of this node, and new ones as they come."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from vllmwall.api.commands import EVENTS
from vllmwall.api.errors import ControlError
from vllmwall.api.events import Event, EventsRequest
from vllmwall.api.units import count
from vllmwall.cli.ask import ask, put
from vllmwall.cli.command_line import Command, common
from vllmwall.cli.drawing import Console, Text
from vllmwall.cli.failures import fail_as
from vllmwall.cli.follow import print_line, ticks, until_enough
from vllmwall.cli.terminal import console

if TYPE_CHECKING:
    from vllmwall.api.events import Events

_EVERY_SECONDS = 0.5
_STYLES = {"debug": "dim", "warning": "yellow", "error": "bold red", "critical": "bold red"}


@click.command(cls=Command)
@click.option("--follow", "-f", is_flag=True, help="Print new events as they come, until Ctrl-C.")
@click.option(
    "--last",
    "-n",
    type=click.IntRange(0, 500),
    default=50,
    show_default=True,
    metavar="NUMBER",
    help="How many of the newest events to print.",
)
def events(follow: bool, last: int) -> None:
    """Print events of workloads, listeners, walls and peers.

    With --json, each line is an object. The daemon keeps its newest 2,000 events while it runs; the
    journal keeps more.
    """
    answer = ask(EVENTS, EventsRequest(most=last))
    with until_enough():
        _print(answer.events)
        if follow:
            _follow(answer)


def _follow(answer: Events) -> None:
    """Print a line of its own when the daemon ends, and when another one answers."""
    epoch, after, is_there = answer.epoch, answer.next, True
    for _ in ticks(_EVERY_SECONDS):
        try:
            found = put(EVENTS, EventsRequest(after=after, epoch=epoch))
        except ControlError as error:
            if error.code == "denied":
                fail_as(error)
            if is_there:
                _print([_own("daemon_gone", f"{error}; trying again")])
            is_there = False
            continue
        if not is_there or found.epoch != epoch:
            words = "the same as before" if found.epoch == epoch else "it has restarted"
            _print([_own("daemon_back", f"a daemon answers: {words}")])
        is_there = True
        if found.lost:
            words = f"{count(found.lost, 'event')} dropped before the follower asked"
            _print([_own("gap", words)])
        _print(found.events)
        epoch, after = found.epoch, found.next


def _own(kind: str, detail: str) -> Event:
    """An event that the follower itself reports."""
    return Event(number=0, time=time.time(), kind=kind, level="warning", detail=detail)


def _line(one: Event) -> Text:
    """An event in one line for a person."""

    text = Text(time.strftime("%H:%M:%S ", time.localtime(one.time)), style="dim")
    text.append(f"{_words(one.kind)} ", style=_STYLES.get(one.level, "bold"))
    where = " ".join(filter(None, (one.namespace, one.workload)))
    text.append(f"{where} " if where else "", style="cyan")
    return text.append(one.detail, style="dim" if one.level == "debug" else "")


def _words(kind: str) -> str:
    """The words for a key; a key that is not known (a newer daemon's) is its own words."""
    from vllmwall.engine.event_keys import EventKey

    known = EventKey.__members__.get(kind.upper())
    return known.words if known else kind.replace("_", " ")


def _print(events: Iterable[Event]) -> None:
    if common().as_json:
        for one in events:
            print_line(one)
        return
    out: Console = console()
    for one in events:
        out.print(_line(one))
