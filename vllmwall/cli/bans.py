"""`vllmwall ban`, `unban` and `bans`: sources that this node answers no more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import click

from vllmwall.cli.peers import Duration
from vllmwall.cli.ssh import ssh_client
from vllmwall.cli.terminal import ask, console, print_json

if TYPE_CHECKING:
    from vllmwall.api.bans_shapes import BanJson, BansJson

_json = click.option("--json", "as_json", is_flag=True, help="For machines.")
_cidrs = click.argument("cidrs", nargs=-1, required=True)


@click.command()
@_cidrs
@click.option("--for", "seconds", type=Duration(), help="Only so long, e.g. 1h.")
@click.option("--reason", default="", help="Why, for whoever reads the list.")
@click.option("--force", is_flag=True, help="Even if peers or your own ssh session are in CIDRS.")
@_json
def ban(
    cidrs: tuple[str, ...], seconds: float | None, reason: str, force: bool, as_json: bool
) -> None:
    """Answer CIDRS no more, at any port but the failsafe ones.

    Their established connections are reset at once. Refused for this host's own addresses,
    loopback and everyone; for peers and whoever is connected by ssh it takes --force.
    """
    arguments = {"networks": list(cidrs), "seconds": seconds, "reason": reason, "force": force}
    _show(ask("bans.add", {**arguments, "ssh_client": ssh_client()}), as_json)


@click.command()
@_cidrs
@_json
def unban(cidrs: tuple[str, ...], as_json: bool) -> None:
    """Lift the bans on CIDRS."""
    _show(ask("bans.remove", {"networks": list(cidrs)}), as_json)


@click.command()
@_json
def bans(as_json: bool) -> None:
    """Show who is banned, until when and why."""
    _show(ask("bans.list"), as_json)


def _show(found: dict[str, object], as_json: bool) -> None:
    answer = cast("BansJson", found)
    if as_json:
        print_json(answer)
        return
    from rich.table import Table

    out = console()
    for problem in answer["problems"]:
        out.print(f"! {problem}", style="yellow")
    if answer["severed"]:
        out.print(f"connections reset: {answer['severed']}")
    if not answer["bans"]:
        out.print("nobody is banned", style="dim")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("BANNED", overflow="fold", min_width=18)
    table.add_column("SINCE", no_wrap=True)
    table.add_column("UNTIL", no_wrap=True)
    table.add_column("REASON", overflow="fold")
    for one in answer["bans"]:
        table.add_row(one["network"], _when(one["since"]), _until(one), one["reason"])
    out.print(table)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _until(one: BanJson) -> str:
    return "for good" if one["expires"] is None else _when(one["expires"])
