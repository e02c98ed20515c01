"""`vllmwall api`: ports that the operator opens as the API of a workload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vllmwall.api.commands import ADD_API, LIST_APIS, REMOVE_API
from vllmwall.api.errors import NoArguments
from vllmwall.cli.ask import ask
from vllmwall.cli.command_line import Group
from vllmwall.cli.drawing import Column, Console, Table
from vllmwall.cli.terminal import print_answer

if TYPE_CHECKING:
    from vllmwall.api.apis import OpenedApis, OpenedPort

_port = click.argument("port", type=click.IntRange(1, 65535))
_workload = click.option(
    "--workload", metavar="NAME", default="", help="Its workload, where several have this port."
)


@click.group(cls=Group)
def api() -> None:
    """List, add and remove ports that you open as APIs."""


@api.command("list")
def list_() -> None:
    """List the ports that were opened as APIs, with their audience now."""
    print_answer(ask(LIST_APIS, NoArguments()), _draw)


@api.command()
@_port
@_workload
@click.option("--save", is_flag=True, help="Write it to conf.d, to keep it after a reboot.")
@click.option("--force", is_flag=True, help="Open it even if it is known to be internal.")
def add(port: int, workload: str, save: bool, force: bool) -> None:
    """Open PORT of a running workload to everyone, as its API.

    For a server that vllmwall did not prove to be an API. It stays open when the workload or the
    daemon restarts. A port that is known to be internal, for example that of a TCPStore, of NCCL
    or of ZMQ, is refused: a host that reaches it may run code as the job.
    """
    from vllmwall.api.apis import AddApi

    print_answer(ask(ADD_API, AddApi(port, workload, save, force)), _draw)


@api.command()
@_port
@_workload
@click.option("--save", is_flag=True, help="Also remove it from the file of `add --save`.")
def remove(port: int, workload: str, save: bool) -> None:
    """Close PORT again, and reset connections that only its being open allowed."""
    from vllmwall.api.apis import RemoveApi

    print_answer(ask(REMOVE_API, RemoveApi(port, workload, save)), _draw)


def _draw(out: Console, answer: OpenedApis) -> None:
    for problem in answer.problems:
        out.print(f"! {problem}", style="yellow")
    if not answer.apis:
        out.print("no port was opened by hand", style="dim")
        return
    columns = (
        Column("PORT", "whole"),
        Column("WORKLOAD"),
        Column("FROM", "whole"),
        Column("WHO MAY CONNECT"),
    )
    out.print(Table(columns, map(_row, answer.apis)))


def _row(one: OpenedPort) -> tuple[str, ...]:
    who = ", ".join(one.audience)
    return (
        str(one.port),
        one.workload,
        one.origin,
        f"{who}: {one.why_closed}" if who and one.why_closed else who or one.why_closed,
    )
