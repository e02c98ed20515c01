"""`vllmwall connections`: who is connected now."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, cast

import click

from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.follow import print_line, say_started, ticks, until_enough
from vllmwall.cli.terminal import ask, console, fail, print_json
from vllmwall.cli.units import count, how_long, how_much

if TYPE_CHECKING:
    from rich.console import Console

    from vllmwall.api.connections_shapes import (
        ClientJson,
        ConnectionEventJson,
        ConnectionsJson,
    )

_WIDE = 110

_Key = tuple[str, str, str, int, str]


@click.command()
@click.argument("which", metavar="[WORKLOAD|ROLE]", required=False)
@click.option("--local", is_flag=True, help="Those of this host too.")
@click.option("--ban", metavar="ADDRESS", help="Ban this address at once, as `vllmwall ban` does.")
@click.option("--follow", is_flag=True, help="Print who comes and goes, a line each.")
@click.option("--json", "as_json", is_flag=True, help="For machines; JSON lines with --follow.")
def connections(
    which: str | None, local: bool, ban: str | None, follow: bool, as_json: bool
) -> None:
    """Show who is connected to which workload, with bytes and age.

    An age with ≥ is the least that it can be: the kernel keeps no more.
    """
    if ban is not None:
        _ban(ban, as_json)
    elif follow:
        with until_enough():
            _follow(which, local=local, as_json=as_json)
    else:
        answer = _asked(which, local=local)
        if as_json:
            print_json(answer)
        else:
            show(console(), answer)


def _ban(address: str, as_json: bool) -> None:
    answer = ask("ban", {"networks": [address]})
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


def _follow(which: str | None, *, local: bool, as_json: bool) -> None:
    before: dict[_Key, ClientJson] | None = None
    for now in ticks():
        after = {_key(one): one for one in _asked(which, local=local)["clients"]}
        for event in comings_and_goings(after if before is None else before, after, now):
            if as_json:
                print_line(event)
            else:
                click.echo(line_of(event))
        sys.stdout.flush()
        if before is None:
            say_started()
        before = after


def comings_and_goings(
    before: Mapping[_Key, ClientJson], after: Mapping[_Key, ClientJson], now: float
) -> Iterator[ConnectionEventJson]:
    """Clients that have their first connection to a listener, or their last one no more."""
    for event, these, those in (("went", before, after), ("came", after, before)):
        for key in these.keys() - those.keys():
            yield {"version": 1, "time": now, "event": event, "client": these[key]}


def line_of(event: ConnectionEventJson) -> str:
    """For people: ``12:31:05 192.0.2.2 came to tcp 29500 (nccl, tiny)``."""
    one = event["client"]
    when = time.strftime("%H:%M:%S", time.localtime(event["time"]))
    verb = "came to" if event["event"] == "came" else "left"
    left = "" if verb == "came to" else f" after {_age(one)}, {_bytes(one)}"
    return (
        f"{when} {one['client']} {verb} tcp {one['port']} ({one['role']}, {one['workload']}){left}"
    )


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
    for title in ("CONNS", "IN", "OUT", "AGE"):
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
        _age(one),
    ]


def _bytes(one: ClientJson) -> str:
    return f"{how_much(one['bytes_received'])} in, {how_much(one['bytes_sent'])} out"


def _age(one: ClientJson) -> str:
    return f"{'' if one['exact'] else '≥ '}{how_long(one['seconds'])}"


def _key(one: ClientJson) -> _Key:
    return one["client"], one["namespace"], one["addr"], one["port"], one["role"]
