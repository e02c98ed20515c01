"""`vllmwall blocked`: blocked sources, and which of them may be a forgotten peer."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, cast

import click

from vllmwall.api.units import count, how_long, how_much
from vllmwall.cli.ask import ask
from vllmwall.cli.command_line import Command, common
from vllmwall.cli.follow import print_line, report_start, ticks, until_enough
from vllmwall.cli.terminal import Column, print_answer, printable, table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from vllmwall.api.blocked_shapes import BlockedJson, NewRefusalJson, RefusedJson

_NAMES_SECONDS = 2.0
_ROWS = 30
_HINTS = 5
_WIDE = 110

_Key = tuple[str, str, str, str, int]


@click.command(cls=Command)
@click.option("--follow", is_flag=True, help="Print newly blocked packets, a line each.")
@click.option(
    "--names/--no-names", default=None, help="Look sources up in DNS.  [default: on a terminal]"
)
@click.option("--all", "everything", is_flag=True, help="Every source, a row for each port.")
def blocked(follow: bool, names: bool | None, everything: bool) -> None:
    """List blocked sources, with their ports and packets.

    With --follow and --json, each line is an object. A name from DNS is shown only if it resolves
    to the address again.
    """
    wanted = sys.stdout.isatty() if names is None else names
    if follow:
        with until_enough():
            _follow(wanted)
    answer = cast("BlockedJson", ask("blocked", {"all": everything}))
    if wanted:
        _name(answer["sources"], {})
    print_answer(answer, partial(_draw, everything=everything))


def _follow(wanted: bool) -> None:
    before: dict[_Key, RefusedJson] | None = None
    known: dict[str, str] = {}
    for now in ticks():
        answer = cast("BlockedJson", ask("blocked", {"newest": True}))
        after = {_key(one): one for one in answer["sources"]}
        news = list(new_refusals(before, after, now)) if before is not None else []
        if wanted:
            _name([line["refused"] for line in news], known)
        for line in news:
            if common().as_json:
                print_line(line)
            else:
                click.echo(line_of(line))
        sys.stdout.flush()
        if before is None:
            report_start()
        before = after


def new_refusals(
    before: Mapping[_Key, RefusedJson], after: Mapping[_Key, RefusedJson], now: float
) -> Iterator[NewRefusalJson]:
    """The differences between two answers, the oldest first."""
    for key, one in sorted(after.items(), key=lambda each: each[1]["last"]):
        old = before.get(key)
        packets = one["packets"] - (old["packets"] if old else 0)
        if packets > 0:
            bytes_ = one["bytes"] - (old["bytes"] if old else 0)
            yield {
                "version": 1,
                "time": now,
                "more_packets": packets,
                "more_bytes": bytes_,
                "refused": one,
            }


def line_of(line: NewRefusalJson) -> str:
    """For people: ``12:31:05 203.0.113.9 blocked at tcp 29500 (nccl, tiny): 3 packets``."""
    one = line["refused"]
    who = f"{one['source']} ({one['name']})" if one["name"] else one["source"]
    verb = "blocked" if one["mode"] == "enforce" else "would be blocked"
    what = ", ".join(part for part in (one["role"], one["workload"]) if part)
    where = f"{one['proto']} {one['port']}" + (f" ({what})" if what else "")
    when = time.strftime("%H:%M:%S", time.localtime(one["last"]))
    hint = f"; {one['hint']}: {one['command']}" if one["command"] else ""
    return f"{when} {who} {verb} at {where}: {count(line['more_packets'], 'packet')}{hint}"


def _draw(out: Console, answer: BlockedJson, *, everything: bool) -> None:
    out.print(headline(answer), style="bold")
    for space in answer["namespaces"]:
        if space["error"]:
            out.print(f"! {space['name']}: {space['error']}", style="red")
        if space["full"]:
            out.print(
                f"! {space['name']}: the kernel has no room to remember more sources, so some are "
                "missing here and these counts are lower bounds",
                style="yellow",
            )
    unnamed = sum(space["unnamed_packets"] for space in answer["namespaces"])
    if unnamed:
        packets = count(unnamed, "packet")
        out.print(f"{packets} from sources that the kernel does not remember", style="dim")
    groups = list(_groups(answer["sources"], everything))
    shown = groups if everything else groups[:_ROWS]
    if shown:
        out.print(_table(shown, answer["time"], wide=out.width >= _WIDE))
    if more := len(groups) - len(shown) + answer["more"]:
        out.print(f"… and {more} more (--all)", style="dim")
    _draw_hints(out, answer["sources"])


def headline(answer: BlockedJson) -> str:
    """The first line: how much was blocked, since when, or only counted."""
    if answer["down"]:
        return "The walls are down on request: nothing is blocked. Put them up: vllmwall up"
    sources = answer["sources"]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(_since(answer)))
    if not sources and not any(space["packets"] for space in answer["namespaces"]):
        return f"Nothing was blocked since {since}"
    parts = []
    for mode, verb in (("enforce", "blocked"), ("audit", "would have been blocked (audit mode)")):
        mine = [one for one in sources if one["mode"] == mode]
        packets = sum(one["packets"] for one in answer["namespaces"] if one["mode"] == mode)
        packets = max(packets, sum(one["packets"] for one in mine))
        if packets:
            who = count(len({one["source"] for one in mine}), "source")
            parts.append(f"{who}, {count(packets, 'packet')} {verb}")
    return f"{'; '.join(parts)} since {since}"


def _since(answer: BlockedJson) -> float:
    return min([answer["since"], *(one["since"] for one in answer["sources"])])


def _groups(sources: Iterable[RefusedJson], everything: bool) -> Iterator[list[RefusedJson]]:
    """One source at many ports of one purpose is one row, unless everything is asked for."""
    groups: dict[object, list[RefusedJson]] = {}
    for one in sources:
        same = (one["source"], one["namespace"], one["mode"], one["proto"], one["role"])
        key = (same, one["workload"], one["port"] if everything else None)
        groups.setdefault(key, []).append(one)
    return iter(sorted(groups.values(), key=lambda group: -sum(one["packets"] for one in group)))


def _table(groups: Iterable[list[RefusedJson]], now: float, *, wide: bool) -> Table:
    columns = [
        Column("SOURCE", width=15),
        Column("PORT", width=9),
        Column("ROLE"),
        Column("WORKLOAD", "fold" if wide else "cut"),
        Column("PACKETS", "whole", right=True),
        Column("LAST", "whole", right=True),
        *(Column(title, "whole") for title in (("BYTES", "SINCE", "WHERE") if wide else ())),
    ]
    return table(columns, ([*_row(one, now), *(_more(one) if wide else ())] for one in groups))


def _row(group: list[RefusedJson], now: float) -> list[str]:
    one = group[0]
    last = max(each["last"] for each in group)
    audit = " (not dropped)" if one["mode"] == "audit" else ""
    return [
        f"{one['source']}\n  {one['name']}" if one["name"] else one["source"],
        f"{one['proto']} {_ports(group)}",
        one["role"] or "-",
        one["workload"] or "-",
        f"{sum(each['packets'] for each in group)}{audit}",
        f"{how_long(now - last)} ago",
    ]


def _more(group: list[RefusedJson]) -> list[str]:
    since = min(each["since"] for each in group)
    return [
        how_much(sum(each["bytes"] for each in group)),
        time.strftime("%m-%d %H:%M:%S", time.localtime(since)),
        group[0]["namespace"],
    ]


def _ports(group: list[RefusedJson]) -> str:
    ports = sorted(one["port"] for one in group)
    return str(ports[0]) if len(ports) == 1 else f"{ports[0]}…{ports[-1]} ({len(ports)})"


def _draw_hints(out: Console, sources: Iterable[RefusedJson]) -> None:
    hinted: dict[str, list[RefusedJson]] = {}
    for one in sources:
        if one["command"]:
            hinted.setdefault(one["command"], []).append(one)
    for command, group in list(hinted.items())[:_HINTS]:
        roles = ", ".join(sorted({one["role"] for one in group}))
        where = f"{group[0]['proto']} {_ports(group)}"
        out.print(f"\n{group[0]['source']} keeps trying {where} ({roles}): {group[0]['hint']}.")
        out.print(f"  {command}", style="bold", soft_wrap=True)
    if len(hinted) > _HINTS:
        out.print(
            f"… and {len(hinted) - _HINTS} more like it: vllmwall blocked --json", style="dim"
        )


def _key(one: RefusedJson) -> _Key:
    return one["source"], one["namespace"], one["mode"], one["proto"], one["port"]


def _name(sources: Iterable[RefusedJson], known: dict[str, str]) -> None:
    """Fill in the names from DNS, each looked up once."""
    from vllmwall.cli.reverse_dns import names_of

    listed = list(sources)
    new = {one["source"] for one in listed} - known.keys()
    known.update(dict.fromkeys(new, ""))
    if new:
        known.update(names_of(new, _NAMES_SECONDS))
    for one in listed:
        one["name"] = str(printable(known[one["source"]]))
