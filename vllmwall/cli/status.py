"""`vllmwall status`: am I safe, and who may connect to what."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast

import click

from vllmwall.cidr import host_port
from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.terminal import console, fail, print_json
from vllmwall.cli.without_daemon import asked

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from vllmwall.api.shapes import (
        DaemonJson,
        ListenerJson,
        ModificationJson,
        OrdersJson,
        StatusJson,
        WorkloadJson,
    )

_RULES = {
    "stands": ("stands", "green"),
    "missing": ("MISSING", "bold red"),
    "unknown": ("unknown", "yellow"),
    "none": ("-", "dim"),
}
_AUDIENCES = {"public": "yellow", "peers": "green", "node": "cyan"}
_NO_WALL = "the walls are down, or its network namespace cannot be read"
_NARROW = 100
_MODIFICATIONS = 3


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--why", is_flag=True, help="Show the evidence for every role.")
@click.option("--all", "everything", is_flag=True, help="One line a listener, unix sockets too.")
def status(as_json: bool, why: bool, everything: bool) -> None:
    """Answer "am I safe?", then show workloads and their listeners.

    Exits with 0 when every wall stands as wanted, else with 5.
    """
    found = asked("status")
    if found is None:
        fail(f"{_without_daemon()}", Exit.NOT_RUNNING)
    answer = cast("StatusJson", found)
    if as_json:
        print_json(answer)
    else:
        show(console(), answer, why=why, everything=everything or why)
    sys.exit(Exit.OK if answer["safe"] else Exit.NOT_SAFE)


def _without_daemon() -> str:
    """What can still be said for sure: whether a wall stands in this network namespace."""
    from vllmwall.api.without_daemon import standing_here
    from vllmwall.enforce.backend import EnforceError

    socket_path = click.get_current_context().find_root().params["socket"]
    start = f"no daemon answers at {socket_path}: new ports stay open."
    try:
        wall = standing_here()
    except (OSError, EnforceError):
        return f"{start} Whether a wall stands is not known (ask as root)"
    if wall is None:
        return f"{start} NOT safe: no wall stands in this network namespace"
    ports = len({(entry.proto, entry.port) for entry in wall.entries})
    what = f"{ports} port" if ports == 1 else f"{ports} ports"
    return f"{start} A wall over {what} still stands in this network namespace"


def show(out: Console, answer: StatusJson, *, why: bool = False, everything: bool = False) -> None:
    """Draw a status for a person."""
    colour = {True: "bold green", False: "bold red"}.get(answer["safe"] is True, "bold yellow")
    out.print(answer["verdict"], style=colour if answer["safe"] is not None else "bold yellow")
    for problem in answer["problems"]:
        out.print(f"! {problem}", style="red")
    for error in answer["config"]["error"] or ():
        line = "" if error["line"] is None else f":{error['line']}"
        out.print(f"! {error['file']}{line}: {error['key']}: {error['message']}", style="red")
    for one in answer["daemon"]["modifications"][-_MODIFICATIONS:] if answer["daemon"] else ():
        out.print(f"! {_modification_line(one)}", style="yellow")
    out.print(_facts_line(answer), style="dim")
    for workload in answer["workloads"]:
        _show_workload(out, workload, answer, why=why, everything=everything)


def _modification_line(one: ModificationJson) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one["at"]))
    who = f"{one['command']} (pid {one['pid']})" if one["pid"] else "another program"
    return f"{when} {who} modified our table in {one['namespace']}: {one['what']}; repaired"


def _facts_line(answer: StatusJson) -> str:
    networks = answer["peers"]["networks"]
    refused = sum(space["refused_packets"] or 0 for space in answer["namespaces"])
    daemon = answer["daemon"]
    parts = [
        answer["host"],
        answer["mode"],
        answer["backend"]["name"],
        _events_part(daemon) if daemon else "no daemon",
        f"peers: {', '.join(networks[:3]) or 'none'}{' …' if len(networks) > 3 else ''}",
        f"refused: {refused} packets",
        *_orders_parts(answer["orders"]),
    ]
    return " · ".join(parts)


def _orders_parts(orders: OrdersJson) -> Iterator[str]:
    if orders["bans"]:
        yield f"bans: {orders['bans']}"
    if orders["lockdown"]:
        yield f"lockdown, open: {', '.join(orders['opened']) or 'APIs only'}"
    if limits := orders["limits"]:
        shown = {"a second": limits["new_per_second"], "at a time": limits["connections"]}
        yield "limits: " + ", ".join(f"{value} {what}" for what, value in shown.items() if value)


def _events_part(daemon: DaemonJson) -> str:
    lost = f" ({daemon['events_lost']} lost)" if daemon["events_lost"] else ""
    why = f": {daemon['events_reason']}" if daemon["events"] != "tracefs" else ""
    return f"events: {daemon['events']}{lost}{why}"


def _show_workload(
    out: Console, workload: WorkloadJson, answer: StatusJson, *, why: bool, everything: bool
) -> None:
    from rich.table import Table
    from rich.text import Text

    spaces = {space["inode"]: space["name"] for space in answer["namespaces"]}
    out.print()
    heading = Text(f"{workload['stack']} ", style="bold")
    heading.append(workload["name"], style="bold cyan")
    heading.append(f"  pid {workload['root_pid']}, {workload['user']}", style="dim")
    out.print(heading)
    out.print(_guard_line(workload), style="dim")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("  LISTENER", overflow="fold", min_width=22)
    table.add_column("ROLE", no_wrap=True)
    table.add_column("WHO MAY CONNECT", overflow="fold")
    table.add_column("RULE", no_wrap=True)
    wide = out.width >= _NARROW
    if wide:
        table.add_column("SURE", justify="right")
        table.add_column("WHERE", overflow="ellipsis", no_wrap=True)
    for group in _groups(workload["listeners"], everything):
        cells = _row(group)
        if wide:
            one = group[0]
            where = spaces.get(one["namespace"], f"net:{one['namespace']}")
            cells += [Text(f"{one['confidence']:.0%}"), Text(where, style="dim")]
        table.add_row(*cells)
        for line in _evidence(group[0]) if why else ():
            table.add_row(Text(line, style="dim"))
    if table.row_count:
        out.print(table)
    else:
        out.print("  no listener yet", style="dim")


def _guard_line(workload: WorkloadJson) -> str:
    guard = workload["guard"]
    if guard["state"] == "stands":
        part = " in part" if guard["reason"] else ""
        return f"  closed before it opens{part}: {', '.join(guard['cgroups'])}"
    if guard["state"] == "none":
        return f"  no guard: {guard['reason'] or _NO_WALL}"
    return f"  guard {guard['state']}: {', '.join(guard['cgroups'])}"


def _groups(listeners: Iterable[ListenerJson], everything: bool) -> Iterator[list[ListenerJson]]:
    """Listeners that differ by nothing but the port share a row, unless everything is asked."""
    groups: dict[object, list[ListenerJson]] = {}
    for one in sorted(listeners, key=_reading_order):
        if one["proto"] == "unix" and one["role"] != "api" and not everything:
            continue
        same = (one["proto"], one["addr"], one["role"], one["rule"], one["namespace"])
        key = (same, one["port"], one["path"]) if everything else same
        groups.setdefault(key, []).append(one)
    return iter(groups.values())


def _reading_order(one: ListenerJson) -> tuple[bool, str, str, int]:
    return one["role"] != "api", one["role"], one["addr"], one["port"]


def _row(group: list[ListenerJson]) -> list[Text]:
    from rich.text import Text

    one = group[0]
    rule, colour = _RULES[one["rule"]]
    audience = ", ".join(one["audience"])
    if one["rule"] == "none" and one["reason"]:
        who = Text(_short(one["reason"]), style="dim")
    elif one["rule"] in ("none", "missing"):
        who = Text("anyone", style="bold red")
    else:
        who = Text(audience, style=_AUDIENCES.get(one["audience"][0], ""))
    return [
        Text(f"  {_place(group)}"),
        Text(one["role"], style="bold" if one["role"] == "api" else ""),
        who,
        Text(rule, style=colour),
    ]


def _short(reason: str) -> str:
    """``loopback only: no packet …`` without what explains it: the table has no room."""
    return reason.partition(":")[0]


def _place(group: list[ListenerJson]) -> str:
    one = group[0]
    if one["proto"] == "unix":
        return f"unix {one['path']}"
    ports = sorted(item["port"] for item in group)
    where = f"{one['proto']} {host_port(one['addr'], ports[0])}"
    return where if len(ports) == 1 else f"{where}…{ports[-1]} ({len(ports)})"


def _evidence(one: ListenerJson) -> Iterator[str]:
    for item in one["evidence"]:
        yield f"      {item['kind']}: {item['detail']}"
