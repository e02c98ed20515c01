"""`vllmwall connections`: the clients that are connected to workloads now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from vllmwall.api.commands import ADD_BANS, CONNECTIONS
from vllmwall.api.errors import NoArguments
from vllmwall.api.units import count, how_much
from vllmwall.cli.ask import ask
from vllmwall.cli.command_line import Command
from vllmwall.cli.drawing import Column, Console, Table
from vllmwall.cli.failures import fail
from vllmwall.cli.ssh import ssh_client
from vllmwall.cli.terminal import print_answer

if TYPE_CHECKING:
    from vllmwall.api.connections import Client, Connections

_WIDE = 110


@click.command(cls=Command)
@click.argument("which", metavar="[WORKLOAD|ROLE]", required=False)
@click.option("--local", is_flag=True, help="Include clients on this host.")
@click.option("--ban", metavar="ADDRESS", help="Ban this address, as `vllmwall ban` does.")
def connections(which: str | None, local: bool, ban: str | None) -> None:
    """List the clients connected to workloads, with their traffic."""
    if ban is not None:
        from vllmwall.api.bans import BanRequest

        answer = ask(ADD_BANS, BanRequest((ban,), ssh_client()))
        print_answer(answer, lambda out, _: _draw_ban(out, ban))
    else:
        print_answer(_listed(which, local=local), _draw)


def _draw_ban(out: Console, address: str) -> None:
    out.print(f"{address} is banned. List bans: vllmwall bans. Undo: vllmwall unban {address}")


def _listed(which: str | None, *, local: bool) -> Connections:
    answer = ask(CONNECTIONS, NoArguments())
    if which is not None:
        _check(which, answer.workloads)
    clients = (
        one
        for one in answer.clients
        if (local or not one.here) and which in (None, one.workload, one.role, one.stack)
    )
    return replace(answer, clients=tuple(clients))


def _check(which: str, workloads: Iterable[str]) -> None:
    """A name that nothing has is a mistake, not an empty answer."""
    from vllmwall.model import Role, Stack

    known = {*workloads, *(role.value for role in Role), *(stack.value for stack in Stack)}
    if which not in known:
        names = ", ".join(workloads) or "none runs"
        fail(f"{which!r} is no workload and no role", "usage", f"Workloads: {names}")


def _draw(out: Console, answer: Connections) -> None:
    for problem in answer.problems:
        out.print(f"! {problem}", style="red")
    clients = answer.clients
    total = count(sum(one.connections for one in clients), "connection")
    who = count(len({one.client for one in clients}), "client")
    out.print(f"{total} of {who}" if clients else "No client is connected.", style="bold")
    if not answer.complete:
        out.print("! there are more connections than could be read", style="yellow")
    wide = out.width >= _WIDE
    columns = [
        Column("CLIENT", width=15),
        Column("PORT", "whole", right=True),
        Column("ROLE"),
        Column("WORKLOAD", "fold" if wide else "cut"),
        *(Column(title, "whole", right=True) for title in ("CONNS", "IN", "OUT")),
        *(Column(title, "whole") for title in (("STATE", "WHERE") if wide else ())),
    ]
    if clients:
        out.print(Table(columns, (_row(one, wide=wide) for one in clients)))


def _row(one: Client, *, wide: bool) -> list[str]:
    state = "" if one.state == "established" else f"\n  {one.state}"
    return [
        f"{one.client}{' (here)' if one.here else ''}{state}",
        str(one.port),
        one.role,
        one.workload,
        str(one.connections),
        how_much(one.bytes_received),
        how_much(one.bytes_sent),
        *((one.state, one.namespace) if wide else ()),
    ]
