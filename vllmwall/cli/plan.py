"""`vllmwall plan`: what a pass would change now, as a diff."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from vllmwall.cidr import host_port
from vllmwall.cli.ssh import ssh_connection
from vllmwall.cli.terminal import console, print_json
from vllmwall.cli.without_daemon import (
    asked,
    config_option,
    errors_in_words,
    only_option,
    runtime_dir,
)

if TYPE_CHECKING:
    from rich.console import Console

    from vllmwall.api.shapes import EntryChangeJson, PlanJson

_MARKS = {"add": ("+", "green"), "remove": ("-", "red"), "change": ("~", "yellow")}


@click.command()
@config_option
@only_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def plan(config: str, only_namespace: tuple[str, ...], as_json: bool) -> None:
    """Show what the configuration on disk would change in the wall that stands."""
    answer = asked("plan", {"ssh": ssh_connection()})
    if answer is None:
        from vllmwall.api.without_daemon import plan_once

        with errors_in_words():
            answer = dict(plan_once(Path(config), runtime_dir(), only_namespace))
    if as_json:
        print_json(answer)
    else:
        show(console(), cast("PlanJson", answer))


def show(out: Console, answer: PlanJson) -> None:
    """Draw a plan for a person."""
    for problem in answer["problems"]:
        out.print(f"! {problem}", style="red")
    if not answer["changes"]:
        out.print("Nothing to change: what stands is what is wanted.")
    for space in answer["namespaces"]:
        if space["action"] == "none":
            continue
        out.print(f"{space['name']}: {space['action']} the wall", style="bold")
        if space["mode"] != space["was_mode"]:
            out.print(f"  ~ mode {space['was_mode']} → {space['mode']}", style="yellow")
        for order in space["orders"]:
            out.print(f"  ~ {order}", style="yellow")
        for entry in space["entries"]:
            mark, colour = _MARKS[entry["change"]]
            out.print(f"  {mark} {_entry(entry)}", style=colour)
        for change in space["networks"]:
            for network in change["add"]:
                out.print(f"  + {network} in {change['audience']}", style="green")
            for network in change["remove"]:
                out.print(f"  - {network} in {change['audience']}", style="red")


def _entry(entry: EntryChangeJson) -> str:
    now, was = ", ".join(entry["audience"]), ", ".join(entry["was"])
    audience = f"{was} → {now}" if entry["change"] == "change" else now or was
    where = f"{entry['proto']} {host_port(entry['addr'], entry['port'])}"
    return f"{where}  {audience}  ({entry['note']})"
