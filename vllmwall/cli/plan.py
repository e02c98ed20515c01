"""`vllmwall plan`: what a pass would change now, as a diff."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import click

from vllmwall.cli.terminal import ask, console, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from vllmwall.report.shapes import EntryChangeJson, PlanJson

_MARKS = {"add": ("+", "green"), "remove": ("-", "red"), "change": ("~", "yellow")}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def plan(as_json: bool) -> None:
    """Show the difference between the wall that stands and the one that would."""
    answer = cast("PlanJson", ask("plan"))
    if as_json:
        print_json(answer)
    else:
        show(console(), answer)


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
        for entry in space["entries"]:
            mark, colour = _MARKS[entry["change"]]
            out.print(f"  {mark} {_entry(entry)}", style=colour)
        for change in space["networks"]:
            for network in change["add"]:
                out.print(f"  + {network} in {change['audience']}", style="green")
            for network in change["remove"]:
                out.print(f"  - {network} in {change['audience']}", style="red")


def _entry(entry: EntryChangeJson) -> str:
    host = f"[{entry['addr']}]" if ":" in entry["addr"] else entry["addr"]
    now, was = ", ".join(entry["audience"]), ", ".join(entry["was"])
    audience = f"{was} → {now}" if entry["change"] == "change" else now or was
    return f"{entry['proto']} {host}:{entry['port']}  {audience}  ({entry['note']})"
