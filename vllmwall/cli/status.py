"""`vllmwall status`: whether this node is safe, and who may connect to what."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import click

from vllmwall.api.commands import STATUS
from vllmwall.api.errors import NoArguments
from vllmwall.api.units import count
from vllmwall.cidr import host_port
from vllmwall.cli.ask import ask_if_running
from vllmwall.cli.command_line import Command, common
from vllmwall.cli.drawing import Column, Console, Table, Text
from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.failures import fail
from vllmwall.cli.terminal import print_answer, problem_line

if TYPE_CHECKING:
    from vllmwall.api.status_answer import (
        ListenerStatus,
        OperatorRules,
        Status,
        WorkloadStatus,
    )
    from vllmwall.engine.facts import DaemonFacts, ModificationFacts

_ACTIVE = {
    "active": ("yes", "green"),
    "missing": ("NO", "bold red"),
    "unknown": ("unknown", "yellow"),
    "none": ("-", "dim"),
}
_AUDIENCES = {"public": "yellow", "peers": "green", "node": "cyan"}
_NO_WALL = "the walls are down, or its network namespace cannot be read"
_START = "Start the daemon: systemctl start vllmwall. Without it new ports stay open."
_NARROW = 100
_MODIFICATIONS = 3


@click.command(cls=Command)
@click.option("--why", is_flag=True, help="Show the evidence for every role.")
@click.option("--all", "everything", is_flag=True, help="One row a listener, unix sockets too.")
def status(why: bool, everything: bool) -> None:
    """Answer "am I safe?" and list workloads with their listeners.

    Exits with 0 when every wall is active as wanted, else with 5.
    """
    answer = ask_if_running(STATUS, NoArguments())
    if answer is None:
        fail(f"no daemon answers at {common().socket}. {_own_wall()}", "not-running", _START)
    print_answer(answer, partial(_draw, why=why, everything=everything or why))
    sys.exit(Exit.OK if answer.safe else Exit.NOT_SAFE)


def _own_wall() -> str:
    """Whether a wall is active in this network namespace, which the kernel knows."""
    from vllmwall.api.without_daemon import standing_here
    from vllmwall.enforce.backend import EnforceError

    try:
        wall = standing_here()
    except (OSError, EnforceError):
        return "Only root can read whether a wall is active"
    if wall is None:
        return "NOT safe: no wall is active in this network namespace"
    ports = len({(entry.proto, entry.port) for entry in wall.entries})
    return f"A wall over {count(ports, 'port')} is still active in this network namespace"


def _draw(out: Console, answer: Status, *, why: bool, everything: bool) -> None:
    colour = {True: "bold green", False: "bold red"}.get(answer.safe is True, "bold yellow")
    out.print(answer.verdict, style=colour if answer.safe is not None else "bold yellow")
    for one in answer.reservations:
        out.print(f"! {one.line}", style="yellow")
    for problem in answer.problems:
        out.print(f"! {problem}", style="red")
    for error in answer.config.error or ():
        out.print(f"! {problem_line(error)}", style="red")
    for change in answer.daemon.modifications[-_MODIFICATIONS:] if answer.daemon else ():
        out.print(f"! {_modification_line(change)}", style="yellow")
    out.print(_facts_line(answer), style="dim")
    for workload in answer.workloads:
        _draw_workload(out, workload, answer, why=why, everything=everything)


def _modification_line(one: ModificationFacts) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.at))
    who = f"{one.command} (pid {one.pid})" if one.pid else "another program"
    return f"{when} {who} modified our table in {one.namespace}: {one.what}; repaired"


def _facts_line(answer: Status) -> str:
    networks = answer.peers.networks
    refused = sum(space.refused_packets or 0 for space in answer.namespaces)
    daemon = answer.daemon
    parts = [
        answer.host,
        answer.mode,
        answer.backend.name,
        _events_part(daemon) if daemon else "no daemon",
        f"peers: {', '.join(map(str, networks[:3])) or 'none'}{' …' if len(networks) > 3 else ''}",
        f"blocked: {count(refused, 'packet')}",
        *_rules_parts(answer.orders),
    ]
    return " · ".join(parts)


def _rules_parts(rules: OperatorRules) -> Iterator[str]:
    if rules.bans:
        yield f"bans: {rules.bans}"
    if rules.lockdown:
        yield f"lockdown, open: {', '.join(rules.opened) or 'APIs only'}"
    if limits := rules.limits:
        shown = {"a second": limits.new_per_second, "at a time": limits.connections}
        yield "limits: " + ", ".join(f"{value} {what}" for what, value in shown.items() if value)


def _events_part(daemon: DaemonFacts) -> str:
    lost = f" ({daemon.events_lost} lost)" if daemon.events_lost else ""
    why = f": {daemon.events_reason}" if daemon.events != "tracefs" else ""
    return f"events: {daemon.events}{lost}{why}"


def _draw_workload(
    out: Console, workload: WorkloadStatus, answer: Status, *, why: bool, everything: bool
) -> None:
    spaces = {space.inode: space.name for space in answer.namespaces}
    out.print()
    heading = Text(f"{workload.stack} ", style="bold")
    heading.append(workload.name, style="bold cyan")
    heading.append(f"  pid {workload.root_pid}, {workload.user}", style="dim")
    out.print(heading)
    out.print(_guard_line(workload), style="dim")
    if groups := list(_groups(workload.listeners, everything)):
        out.print(_listeners(groups, spaces, wide=out.width >= _NARROW, why=why))
    else:
        out.print("  no listener yet", style="dim")


def _listeners(
    groups: Iterable[list[ListenerStatus]], spaces: Mapping[int, str], *, wide: bool, why: bool
) -> Table:
    columns = [
        Column("  LISTENER", width=22),
        Column("ROLE", "whole"),
        Column("WHO MAY CONNECT"),
        Column("ACTIVE", "whole"),
    ]
    columns += [Column("CONFIDENCE", right=True), Column("WHERE", "cut")] if wide else []
    rows = []
    for group in groups:
        cells = _row(group)
        if wide:
            one = group[0]
            where = spaces.get(one.namespace, f"net:{one.namespace}")
            cells += [Text(f"{one.confidence:.0%}"), Text(where, style="dim")]
        rows.append(cells)
        rows += [[Text(line, style="dim")] for line in (_evidence(group[0]) if why else ())]
    return Table(columns, rows)


def _guard_line(workload: WorkloadStatus) -> str:
    guard = workload.guard
    if guard.state == "active":
        part = " in part" if guard.reason else ""
        return f"  guarded{part}: {', '.join(guard.cgroups)}"
    if guard.state == "none":
        return f"  no guard: {guard.reason or _NO_WALL}"
    return f"  guard {guard.state}: {', '.join(guard.cgroups)}"


def _groups(
    listeners: Iterable[ListenerStatus], everything: bool
) -> Iterator[list[ListenerStatus]]:
    """Listeners that differ by nothing but the port share a row, unless everything is asked."""
    groups: dict[object, list[ListenerStatus]] = {}
    for one in sorted(listeners, key=_reading_order):
        if one.proto == "unix" and one.role != "api" and not everything:
            continue
        same = (one.proto, one.addr, one.role, one.rule, one.namespace)
        key = (same, one.port, one.path) if everything else same
        groups.setdefault(key, []).append(one)
    return iter(groups.values())


def _reading_order(one: ListenerStatus) -> tuple[bool, str, str, int]:
    return one.role != "api", one.role, one.addr, one.port


def _row(group: list[ListenerStatus]) -> list[Text]:
    one = group[0]
    rule, colour = _ACTIVE[one.rule]
    audience = ", ".join(one.audience)
    if one.rule == "none" and one.reason:
        who = Text(_short(one.reason), style="dim")
    elif one.rule in ("none", "missing"):
        who = Text("anyone", style="bold red")
    else:
        who = Text(audience, style=_AUDIENCES.get(one.audience[0], ""))
    return [
        Text(f"  {_place(group)}"),
        Text(one.role, style="bold" if one.role == "api" else ""),
        who,
        Text(rule, style=colour),
    ]


def _short(reason: str) -> str:
    """``loopback only: no packet …`` without the explanation: the table has no room for it."""
    return reason.partition(":")[0]


def _place(group: list[ListenerStatus]) -> str:
    one = group[0]
    if one.proto == "unix":
        return f"unix {one.path}"
    ports = sorted(item.port for item in group)
    first = f"{one.proto} {host_port(one.addr, ports[0])}"
    return first if len(ports) == 1 else f"{first}…{ports[-1]} ({len(ports)})"


def _evidence(one: ListenerStatus) -> Iterator[str]:
    for item in one.evidence:
        yield f"      {item.kind}: {item.detail}"
