"""`vllmwall doctor`: checks of everything on this node that the wall depends on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from vllmwall.api.commands import STATUS
from vllmwall.api.errors import ControlError, NoArguments
from vllmwall.api.units import count
from vllmwall.cli.ask import put
from vllmwall.cli.command_line import Command, common
from vllmwall.cli.drawing import Text
from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.parameters import config_option
from vllmwall.cli.terminal import console, print_json, printable

if TYPE_CHECKING:
    from vllmwall.api.status_answer import Status
    from vllmwall.inspect.doctor import Diagnosis

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "bold red")}


@click.command(cls=Command)
@config_option
@click.option("--all", "everything", is_flag=True, help="Also print checks that are ok.")
def doctor(config: str, everything: bool) -> None:
    """Check the kernel, the daemon and other firewalls.

    Each failure and warning comes with a remedy. Tests run in a temporary network namespace;
    nothing on this node is changed. Exits with 5 when a check fails.
    """
    from vllmwall.inspect.doctor import Health, examination, examine

    status, why = _status()
    found = []
    for one in examine(status, why, config):
        found.append(one)
        if not common().as_json and (everything or one.state is not Health.OK):
            _draw(one)
    failed = any(one.state is Health.FAIL for one in found)
    if common().as_json:
        print_json(examination(found))
    else:
        counts = {state: sum(one.state is state for one in found) for state in Health}
        console().print(
            f"{counts[Health.OK]} ok, {count(counts[Health.WARN], 'warning')}, "
            f"{count(counts[Health.FAIL], 'failure')}",
            style="bold red" if failed else "green",
        )
    sys.exit(Exit.NOT_SAFE if failed else Exit.OK)


def _status() -> tuple[Status | None, str]:
    try:
        return put(STATUS, NoArguments()), ""
    except ControlError as error:
        return None, str(error)


def _draw(one: Diagnosis) -> None:
    mark, colour = _MARKS[one.state.value]
    seen, remedy = str(printable(one.seen)), str(printable(one.remedy))
    console().print(Text().append(f"{mark} {one.subject}", colour).append(f": {seen}"))
    if remedy:
        console().print(Text(f"  → {remedy}", style="bold"))
