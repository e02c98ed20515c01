"""`vllmwall plan`: a diff of the active walls and the configuration on disk."""

from __future__ import annotations

from pathlib import Path

import click

from vllmwall.api.commands import PLAN
from vllmwall.api.plan_answer import EntryChange, Plan, PlanRequest
from vllmwall.cidr import host_port
from vllmwall.cli.ask import ask_if_running
from vllmwall.cli.command_line import Command
from vllmwall.cli.drawing import Console
from vllmwall.cli.parameters import config_option, only_option
from vllmwall.cli.ssh import ssh_connection
from vllmwall.cli.terminal import print_answer
from vllmwall.cli.without_daemon import failing_in_words, runtime_dir

_MARKS = {"add": ("+", "green"), "remove": ("-", "red"), "change": ("~", "yellow")}


@click.command(cls=Command)
@config_option
@only_option
def plan(config: str, only_namespace: tuple[str, ...]) -> None:
    """Show what the configuration on disk would change.

    Prints a diff from the active walls; changes nothing.
    """
    answer = ask_if_running(PLAN, PlanRequest(ssh_connection()))
    if answer is None:
        from vllmwall.api.without_daemon import plan_once

        with failing_in_words():
            answer = plan_once(Path(config), runtime_dir(), only_namespace)
    print_answer(answer, _draw)


def _draw(out: Console, answer: Plan) -> None:
    for problem in answer.problems:
        out.print(f"! {problem}", style="red")
    if not answer.changes:
        out.print("Nothing to change: the active walls are as configured.")
    for space in answer.namespaces:
        if space.action == "none":
            continue
        out.print(f"{space.name}: {space.action} the wall", style="bold")
        if space.mode != space.was_mode:
            out.print(f"  ~ mode {space.was_mode} → {space.mode}", style="yellow")
        for order in space.orders:
            out.print(f"  ~ {order}", style="yellow")
        for entry in space.entries:
            mark, colour = _MARKS[entry.change]
            out.print(f"  {mark} {_entry(entry)}", style=colour)
        for change in space.networks:
            for network in change.add:
                out.print(f"  + {network} in {change.audience}", style="green")
            for network in change.remove:
                out.print(f"  - {network} in {change.audience}", style="red")


def _entry(entry: EntryChange) -> str:
    now, was = ", ".join(entry.audience), ", ".join(entry.was)
    audience = f"{was} → {now}" if entry.change == "change" else now or was
    place = host_port(entry.addr, entry.port)
    return f"{entry.proto} {place}  {audience}  ({entry.note})"
