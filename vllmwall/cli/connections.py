"""`vllmwall connections`: who is connected now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

import click

from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.ssh import ssh_client
from vllmwall.cli.terminal import ask, console, fail, print_json
from vllmwall.cli.units import count, how_much

if TYPE_CHECKING:
    from rich.console import Console

    from vllmwall.api.connections_shapes import ClientJson, ConnectionsJson

_WIDE = 110


@click.command()
@click.argument("which", metavar="[WORKLOAD|ROLE]", required=False)
@click.option("--local", is_flag=True, help="Those of this host too.")
@click.option("--ban", metavar="ADDRESS", help="Ban this address at once, as `vllmwall ban` does.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def connections(which: str | None, local: bool, ban: str | None, as_json: bool) -> None:
    """Show who is connected to which workload, with bytes."""
    if ban is not None:
        _ban(ban, as_json)
    else:
        answer = _asked(which, local=local)
        if as_json:
            print_json(answer)
        else:
            show(console(), answer)


def _ban(address: str, as_json: bool) -> None:
    answer = ask("bans.add", {"networks": [address], "ssh_client": ssh_client()})
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{address} is banned. `vllmwall bans` shows all, `vllmwall unban` ends it.")


def _asked(which: str | None, *, local: bool) -> ConnectionsJson:
    answer = cast("ConnectionsJson", ask("connections"))
    if which is not None:
        _check(which, answer["workloads"])
    answer["clients"] = [
        one
        for one in answer["clients"]
        if (local or not one["here"])
        and which in (None, one["workload"], one["role"], one["stack"])
    ]
    return answer


def _check(which: str, workloads: Iterable[str]) -> None:
    """A name that nothing has is a mistake, not an empty answer."""
    from vllmwall.model import Role, Stack

    known = {*workloads, *(role.value for role in Role), *(stack.value for stack in Stack)}
    if which not in known:
        names = ", ".join(workloads) or "none runs"
        fail(f"{which!r} is no workload and no role. Workloads: {names}", Exit.BAD_CONFIG)


def show(out: Console, answer: ConnectionsJson) -> None:
    """Draw it for a person."""
    from rich.table import Table

    for problem in answer["problems"]:
        out.print(f"! {problem}", style="red")
    clients = answer["clients"]
    total = count(sum(one["connections"] for one in clients), "connection")
    who = count(len({one["client"] for one in clients}), "client")
    out.print(f"{total} of {who}" if clients else "Nobody is connected.", style="bold")
    if not answer["complete"]:
        out.print("! there are more connections than could be read", style="yellow")
    wide = out.width >= _WIDE
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("CLIENT", overflow="fold", min_width=15)
    table.add_column("PORT", justify="right", no_wrap=True)
    table.add_column("ROLE", overflow="fold")
    table.add_column("WORKLOAD", overflow="fold" if wide else "ellipsis", no_wrap=not wide)
    for title in ("CONNS", "IN", "OUT"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("STATE", "WHERE") if wide else ():
        table.add_column(title, no_wrap=True)
    for one in clients:
        table.add_row(*_row(one), *((one["state"], one["namespace"]) if wide else ()))
    if clients:
        out.print(table)


def _row(one: ClientJson) -> list[str]:
    state = "" if one["state"] == "established" else f"\n  {one['state']}"
    return [
        f"{one['client']}{' (here)' if one['here'] else ''}{state}",
        str(one["port"]),
        one["role"],
        one["workload"],
        str(one["connections"]),
        how_much(one["bytes_received"]),
        how_much(one["bytes_sent"]),
    ]
