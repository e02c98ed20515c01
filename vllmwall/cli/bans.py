"""`vllmwall ban`, `unban` and `bans`: sources whose packets this node drops."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from vllmwall.api.commands import ADD_BANS, LIST_BANS, REMOVE_BANS
from vllmwall.api.errors import NoArguments
from vllmwall.api.networks import NetworksRequest
from vllmwall.cli.ask import ask
from vllmwall.cli.command_line import Command
from vllmwall.cli.drawing import Column, Console, Table
from vllmwall.cli.parameters import Duration, cidrs_argument
from vllmwall.cli.ssh import ssh_client
from vllmwall.cli.terminal import print_answer

if TYPE_CHECKING:
    from vllmwall.api.bans import Bans
    from vllmwall.networks.banlist import Ban


@click.command(cls=Command)
@cidrs_argument
@click.option("--for", "seconds", type=Duration(), help="Remove the ban after this time, e.g. 1h.")
@click.option("--reason", default="", help="A note that `vllmwall bans` shows.")
@click.option("--force", is_flag=True, help="Ban even peers and your own SSH client.")
def ban(cidrs: tuple[str, ...], seconds: float | None, reason: str, force: bool) -> None:
    """Drop all traffic from CIDRS, except to failsafe ports.

    Established connections from CIDRS are reset at once. A ban of this host's own addresses, of
    loopback or of everyone is refused; a ban of a peer or of a client connected over SSH needs
    --force.
    """
    from vllmwall.api.bans import BanRequest

    print_answer(ask(ADD_BANS, BanRequest(cidrs, ssh_client(), seconds, reason, force)), _draw)


@click.command(cls=Command)
@cidrs_argument
def unban(cidrs: tuple[str, ...]) -> None:
    """Remove the bans on CIDRS."""
    print_answer(ask(REMOVE_BANS, NetworksRequest(cidrs)), _draw)


@click.command(cls=Command)
def bans() -> None:
    """List the bans, with their ends and reasons."""
    print_answer(ask(LIST_BANS, NoArguments()), _draw)


def _draw(out: Console, answer: Bans) -> None:
    for problem in answer.problems:
        out.print(f"! {problem}", style="yellow")
    if answer.severed:
        out.print(f"connections reset: {answer.severed}")
    if not answer.bans:
        out.print("no bans", style="dim")
        return
    columns = (
        Column("BANNED", width=18),
        Column("SINCE", "whole"),
        Column("UNTIL", "whole"),
        Column("REASON"),
    )
    out.print(Table(columns, map(_row, answer.bans)))


def _row(one: Ban) -> tuple[str, ...]:
    return str(one.network), _when(one.since), _until(one), one.reason


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _until(one: Ban) -> str:
    return "forever" if one.expires is None else _when(one.expires)
