"""`vllmwall snapshot` and `vllmwall recognize`: observations as a file, and their recognition."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from vllmwall.api.commands import SNAPSHOT
from vllmwall.api.units import count
from vllmwall.cli.ask import ask
from vllmwall.cli.command_line import Command
from vllmwall.cli.drawing import Column, Console, Table
from vllmwall.cli.failures import fail
from vllmwall.cli.terminal import print_answer, printable

if TYPE_CHECKING:
    from vllmwall.api.recognition import RecognitionAnswer, RecognizedListener

_COLUMNS = tuple(map(Column, ("LISTENER", "ROLE", "AUDIENCE", "CONFIDENCE", "EVIDENCE")))


@click.command(cls=Command)
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write to this file.")
@click.option("--workload", metavar="NAME|PID", default="", help="Only this workload or process.")
@click.option("--namespace", metavar="NAME", default="", help="Only this network namespace.")
def snapshot(output: str | None, workload: str, namespace: str) -> None:
    """Save what vllmwall observes here, for a bug report.

    Secrets are left out: only flags and variables that recognition reads are included. With
    --workload or --namespace nothing else of this node is included either, and `vllmwall recognize`
    still gives the same roles. With a PID outside every workload, the snapshot holds that process,
    its descendants, and its ancestors in the same cgroup.
    """
    from vllmwall.api.snapshot import SnapshotRequest

    if workload and namespace:
        raise click.UsageError("--workload and --namespace cannot be combined")
    text = json.dumps(ask(SNAPSHOT, SnapshotRequest(workload, namespace)).snapshot, indent=1)
    if output is None:
        click.echo(text)
        return
    try:
        Path(output).write_text(text + "\n")
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror or error}")
    click.echo(f"Written to {output}. Flags and variables that recognition does not read are out.")


@click.command(cls=Command)
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
def recognize(file: str) -> None:
    """Show what vllmwall recognizes in FILE, a snapshot."""
    from vllmwall import recognize as recognition
    from vllmwall.api.recognition import recognition_answer
    from vllmwall.model import Policy, Role
    from vllmwall.observe.snapshot import load

    try:
        node = load(Path(file))
    except (OSError, ValueError) as error:
        fail(str(error))
    answer = recognition_answer(recognition.recognize(node), Policy({Role.API: ("public",)}))
    print_answer(cast("RecognitionAnswer", printable(answer)), _draw)


def _draw(out: Console, answer: RecognitionAnswer) -> None:
    for workload in answer.workloads:
        title = f"{workload.stack} {workload.name} (pid {workload.root_pid})"
        out.print(title, style="bold")
        out.print(Table(_COLUMNS, map(_cells, workload.listeners)))
    others = count(len(answer.unclaimed), "other listener")
    out.print(f"{others} outside any workload", style="dim")


def _cells(one: RecognizedListener) -> tuple[str, ...]:
    because = "; ".join(f"{item.kind}: {item.detail}" for item in one.evidence)
    place = f"{one.proto} {one.addr}" + (f" port {one.port}" if one.port else "")
    return place, one.role, ", ".join(one.audience), f"{one.confidence:.0%}", because
