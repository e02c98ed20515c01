"""`vllmwall doctor`: what this node lacks, or has, that matters to the wall."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vllmwall.api.client import request
from vllmwall.api.errors import ControlError
from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.terminal import console, print_json, printable
from vllmwall.cli.units import count
from vllmwall.cli.without_daemon import config_option

if TYPE_CHECKING:
    from vllmwall.inspect.doctor import Diagnosis

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "bold red")}


@click.command()
@config_option
@click.option("--all", "everything", is_flag=True, help="Also what is in order.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def doctor(config: str, everything: bool, as_json: bool) -> None:
    """Look at the kernel, the daemon and the other firewalls, and say what to do.

    Everything is tried in a network namespace that is thrown away; nothing here is changed.
    """
    from vllmwall.inspect.doctor import Health, examination, examine

    status, why = _status()
    found = []
    for one in examine(status, why, config):
        found.append(one)
        if not as_json and (everything or one.state is not Health.OK):
            _draw(one)
    failed = any(one.state is Health.FAIL for one in found)
    if as_json:
        print_json(asdict(examination(found)))
    else:
        counts = {state: sum(one.state is state for one in found) for state in Health}
        console().print(
            f"{counts[Health.OK]} ok, {count(counts[Health.WARN], 'warning')}, "
            f"{count(counts[Health.FAIL], 'failure')}",
            style="bold red" if failed else "green",
        )
    sys.exit(Exit.NOT_SAFE if failed else Exit.OK)


def _status() -> tuple[dict[str, object] | None, str]:
    socket_path = Path(click.get_current_context().find_root().params["socket"])
    try:
        return request("status", None, socket_path), ""
    except ControlError as error:
        return None, str(error)


def _draw(one: Diagnosis) -> None:
    from rich.text import Text

    mark, colour = _MARKS[one.state.value]
    seen, remedy = str(printable(one.seen)), str(printable(one.remedy))
    console().print(Text.assemble((f"{mark} {one.subject}", colour), f": {seen}"))
    if remedy:
        console().print(Text(f"  → {remedy}", style="bold"))
