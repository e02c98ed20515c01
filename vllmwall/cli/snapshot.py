"""`vllmwall snapshot` and `vllmwall recognize`: what was observed, as a file, and back again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from vllmwall.cli.terminal import ask, console, fail, print_json, printable

if TYPE_CHECKING:
    from vllmwall.api.recognition import ListenerOut, RecognitionOut


@click.command()
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write here, not to stdout.")
def snapshot(output: str | None) -> None:
    """Write what is observed on this node, secrets removed, for a bug report."""
    found = ask("snapshot")["snapshot"]
    text = json.dumps(found, indent=1)
    if output is None:
        click.echo(text)
        return
    Path(output).write_text(text + "\n")
    click.echo(f"{output}: written; flags and variables that recognition does not read are out")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def recognize(file: str, as_json: bool) -> None:
    """Show the workloads and roles that vllmwall recognizes in FILE, a snapshot."""
    from vllmwall import recognize as recognition
    from vllmwall.api.recognition import recognition_json
    from vllmwall.model import Policy, Role
    from vllmwall.observe.snapshot import load

    try:
        node = load(Path(file))
    except (OSError, ValueError) as error:
        fail(str(error))
    policy = Policy({Role.API: ("public",)})
    answer = recognition_json(recognition.recognize(node), policy)
    if as_json:
        print_json(answer)
    else:
        _show(cast("RecognitionOut", printable(answer)))


def _show(answer: RecognitionOut) -> None:
    from rich.table import Table

    out = console()
    for workload in answer["workloads"]:
        title = f"{workload['stack']} {workload['name']} (pid {workload['root_pid']})"
        out.print(title, style="bold")
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), header_style="dim")
        for column in ("LISTENER", "ROLE", "WHO", "SURE", "BECAUSE"):
            table.add_column(column, overflow="fold")
        for one in workload["listeners"]:
            table.add_row(*_cells(one))
        out.print(table)
    out.print(f"{len(answer['unclaimed'])} listeners belong to no workload", style="dim")


def _cells(one: ListenerOut) -> tuple[str, ...]:
    because = "; ".join(f"{item['kind']}: {item['detail']}" for item in one["evidence"])
    place = f"{one['proto']} {one['addr']}" + (f" port {one['port']}" if one["port"] else "")
    return place, one["role"], ", ".join(one["audience"]), f"{one['confidence']:.0%}", because
