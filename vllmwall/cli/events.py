"""`vllmwall events`: what happened on this node, and what happens now."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from vllmwall.api.server import ControlError, request
from vllmwall.cli.exit_codes import exit_of
from vllmwall.cli.follow import print_line, ticks, until_enough
from vllmwall.cli.terminal import ask, console, fail, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from vllmwall.api.events_shapes import EventJson, EventsJson

_EVERY_SECONDS = 0.5
STYLES = {"debug": "dim", "warning": "yellow", "error": "bold red", "critical": "bold red"}


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Print new events as they come, until Ctrl-C.")
@click.option(
    "--last",
    "-n",
    type=click.IntRange(0, 500),
    default=50,
    show_default=True,
    metavar="NUMBER",
    help="How many of the events until now.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def events(follow: bool, last: int, as_json: bool) -> None:
    """What happened: workloads, listeners, walls, guards, touches, peers, failures.

    The daemon keeps its newest 2,000 events while it runs; the journal keeps more.
    """
    answer = cast("EventsJson", ask("events", {"most": last}))
    with until_enough():
        _print(answer["events"], as_json=as_json)
        if follow:
            _follow(answer, as_json=as_json)


def _follow(answer: EventsJson, *, as_json: bool) -> None:
    """A daemon that ends is said once, and so is the one that comes after it."""
    epoch, after, is_there = answer["epoch"], answer["next"], True
    for _ in ticks(_EVERY_SECONDS):
        try:
            found = more(after, epoch)
        except ControlError as error:
            if error.code == "denied":
                fail(str(error), exit_of(error))
            if is_there:
                _print([said("daemon-gone", f"{error}; trying again")], as_json=as_json)
            is_there = False
            continue
        if not is_there or found["epoch"] != epoch:
            words = "the same as before" if found["epoch"] == epoch else "it was started anew"
            _print([said("daemon-back", f"a daemon answers: {words}")], as_json=as_json)
        is_there = True
        if found["lost"]:
            words = f"{found['lost']} events were given up before they were asked for"
            _print([said("gap", words)], as_json=as_json)
        _print(found["events"], as_json=as_json)
        epoch, after = found["epoch"], found["next"]


def more(after: int, epoch: str) -> EventsJson:
    """The events after a number. Raises ControlError."""
    socket_path = Path(click.get_current_context().find_root().params["socket"])
    found = request("events", {"after": after, "epoch": epoch}, socket_path)
    return cast("EventsJson", printable(found))


def said(kind: str, words: str) -> EventJson:
    """An event of our own: what the follower saw."""
    return {
        "version": 1,
        "number": 0,
        "time": time.time(),
        "kind": kind,
        "level": "warning",
        "namespace": "",
        "workload": "",
        "detail": words,
    }


def line(one: EventJson) -> Text:
    """An event for a person, as short as it can be told."""
    from rich.text import Text

    text = Text(time.strftime("%H:%M:%S ", time.localtime(one["time"])), style="dim")
    text.append(f"{one['kind']} ", style=STYLES.get(one["level"], "bold"))
    where = " ".join(filter(None, (one["namespace"], one["workload"])))
    text.append(f"{where} " if where else "", style="cyan")
    return text.append(one["detail"], style="dim" if one["level"] == "debug" else "")


def _print(events: Iterable[EventJson], *, as_json: bool) -> None:
    if as_json:
        for one in events:
            print_line(one)
        return
    out: Console = console()
    for one in events:
        out.print(line(one))
