"""`vllmwall adopted`: hosts that were connected before the first wall of a workload."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from vllmwall.api.adopted_answer import AdoptedRequest
from vllmwall.api.commands import DROP_ADOPTED, KEEP_ADOPTED, LIST_ADOPTED
from vllmwall.api.errors import NoArguments
from vllmwall.cli.ask import ask
from vllmwall.cli.command_line import Group
from vllmwall.cli.drawing import Column, Console, Table
from vllmwall.cli.terminal import print_answer

if TYPE_CHECKING:
    from vllmwall.api.adopted_answer import AdoptedAnswer, AdoptedWorkload

_workload = click.argument("workload", default="")


@click.group(cls=Group)
def adopted() -> None:
    """List, keep and drop hosts connected before the first wall."""


@adopted.command("list")
def list_() -> None:
    """List what was adopted, and what was blocked then.

    A job that ran before vllmwall keeps its connections to hosts in private networks, and those
    hosts may connect to it until it ends. A web server with clients stays open as long.
    """
    print_answer(ask(LIST_ADOPTED, NoArguments()), _draw)


@adopted.command()
@_workload
def keep(workload: str) -> None:
    """Save what WORKLOAD adopted, in conf.d. Without WORKLOAD: what all adopted.

    The hosts become peers of every workload, and the open ports APIs.
    """
    print_answer(ask(KEEP_ADOPTED, AdoptedRequest(workload)), _draw)


@adopted.command()
@_workload
def drop(workload: str) -> None:
    """Block what WORKLOAD adopted and reset its connections. Without WORKLOAD: of all."""
    print_answer(ask(DROP_ADOPTED, AdoptedRequest(workload)), _draw)


def _draw(out: Console, answer: AdoptedAnswer) -> None:
    for problem in answer.problems:
        out.print(f"! {problem}", style="yellow")
    for one in answer.kept:
        out.print(f"kept for good: {_what(one)} of {one.workload}")
    for one in answer.dropped:
        out.print(f"dropped: {_what(one)} of {one.workload}")
    if not answer.enabled:
        out.print("peers.adopt = false: nothing is adopted, and what was is blocked", style="dim")
    if answer.would:
        out.print("Enforce mode would adopt this now:")
    shown = (*answer.adopted, *answer.would)
    if not shown:
        out.print("nothing is adopted", style="dim")
        return
    columns = (
        Column("WORKLOAD"),
        Column("SINCE", "whole"),
        Column("CONNECTED THEN"),
        Column("NOW"),
    )
    out.print(Table(columns, (row for one in shown for row in _rows(one))))


def _rows(one: AdoptedWorkload) -> Iterator[tuple[str, ...]]:
    head = (
        f"{one.workload} (pid {one.root_pid})",
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.since)),
    )
    for host in one.hosts:
        to = f"its {host.role} ports" if host.role else "its internal ports"
        yield (*head, str(host.address), f"may connect to {to}")
    for port in one.open_ports:
        yield (*head, f"clients of port {port}", "open to everyone")
    for refused in one.refused:
        yield (*head, str(refused.address), f"blocked: {refused.why}")
    if one.refusals > len(one.refused):
        yield (*head, f"{one.refusals - len(one.refused)} more", "blocked")


def _what(one: AdoptedWorkload) -> str:
    hosts = [str(each.address) for each in one.hosts if not each.role]
    return ", ".join((*hosts, *(f"port {port}" for port in one.open_ports))) or "nothing"
