"""`vllmwall ban`, `unban` and `bans`: sources whose packets this node drops."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import click

from vllmwall.cli.ask import ask
from vllmwall.cli.command_line import Command
from vllmwall.cli.parameters import Duration, cidrs_argument
from vllmwall.cli.ssh import ssh_client
from vllmwall.cli.terminal import Column, print_answer, table

if TYPE_CHECKING:
    from rich.console import Console

    from vllmwall.api.bans_shapes import BanJson, BansJson


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
    arguments = {"networks": list(cidrs), "seconds": seconds, "reason": reason, "force": force}
    _print(ask("bans.add", {**arguments, "ssh_client": ssh_client()}))


@click.command(cls=Command)
@cidrs_argument
def unban(cidrs: tuple[str, ...]) -> None:
    """Remove the bans on CIDRS."""
    _print(ask("bans.remove", {"networks": list(cidrs)}))


@click.command(cls=Command)
def bans() -> None:
    """List the bans, with their ends and reasons."""
    _print(ask("bans.list"))


def _print(found: dict[str, object]) -> None:
    print_answer(cast("BansJson", found), _draw)


def _draw(out: Console, answer: BansJson) -> None:
    for problem in answer["problems"]:
        out.print(f"! {problem}", style="yellow")
    if answer["severed"]:
        out.print(f"connections reset: {answer['severed']}")
    if not answer["bans"]:
        out.print("no bans", style="dim")
        return
    columns = (
        Column("BANNED", width=18),
        Column("SINCE", "whole"),
        Column("UNTIL", "whole"),
        Column("REASON"),
    )
    out.print(table(columns, map(_row, answer["bans"])))


def _row(one: BanJson) -> tuple[str, ...]:
    return one["network"], _when(one["since"]), _until(one), one["reason"]


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _until(one: BanJson) -> str:
    return "forever" if one["expires"] is None else _when(one["expires"])
