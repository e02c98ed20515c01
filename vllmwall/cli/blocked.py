"""`vllmwall blocked`: who was refused, and who of them may be a forgotten peer."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, cast

import click

from vllmwall.cli.follow import print_line, say_started, ticks, until_enough
from vllmwall.cli.terminal import ask, console, print_json, printable
from vllmwall.cli.units import count, how_long, how_much

if TYPE_CHECKING:
    from rich.console import Console

    from vllmwall.api.blocked_shapes import BlockedJson, NewRefusalJson, RefusedJson

_NAMES_SECONDS = 2.0
_ROWS = 30
_HINTS = 5
_WIDE = 110

_Key = tuple[str, str, str, str, int]


@click.command()
@click.option("--follow", is_flag=True, help="Print new refusals as they come, a line each.")
@click.option(
    "--names/--no-names", default=None, help="Ask DNS who it was.  [default: on a terminal]"
)
@click.option("--all", "everything", is_flag=True, help="Every source, and a row for each port.")
@click.option("--json", "as_json", is_flag=True, help="For machines; JSON lines with --follow.")
def blocked(follow: bool, names: bool | None, everything: bool, as_json: bool) -> None:
    """Show who was refused, at which port, how often, and when last.

    Names count only if they lead back to the address.
    """
    wanted = sys.stdout.isatty() if names is None else names
    if follow:
        with until_enough():
            _follow(wanted, as_json)
    answer = cast("BlockedJson", ask("blocked", {"all": everything}))
    if wanted:
        _name(answer["sources"], {})
    if as_json:
        print_json(answer)
    else:
        show(console(), answer, everything=everything)


def _follow(wanted: bool, as_json: bool) -> None:
    before: dict[_Key, RefusedJson] | None = None
    known: dict[str, str] = {}
    for now in ticks():
        answer = cast("BlockedJson", ask("blocked", {"newest": True}))
        after = {_key(one): one for one in answer["sources"]}
        news = list(new_refusals(before, after, now)) if before is not None else []
        if wanted:
            _name([line["refused"] for line in news], known)
        for line in news:
            if as_json:
                print_line(line)
            else:
                click.echo(line_of(line))
        sys.stdout.flush()
        if before is None:
            say_started()
        before = after


def new_refusals(
    before: Mapping[_Key, RefusedJson], after: Mapping[_Key, RefusedJson], now: float
) -> Iterator[NewRefusalJson]:
    """What came between two answers, the oldest first."""
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
    """For people: ``12:31:05 203.0.113.9 refused at tcp 29500 (nccl, tiny): 3 packets``."""
    one = line["refused"]
    who = f"{one['source']} ({one['name']})" if one["name"] else one["source"]
    verb = "refused" if one["mode"] == "enforce" else "would be refused"
    what = ", ".join(part for part in (one["role"], one["workload"]) if part)
    where = f"{one['proto']} {one['port']}" + (f" ({what})" if what else "")
    when = time.strftime("%H:%M:%S", time.localtime(one["last"]))
    hint = f"; {one['hint']}: {one['command']}" if one["command"] else ""
    return f"{when} {who} {verb} at {where}: {count(line['more_packets'], 'packet')}{hint}"


def show(out: Console, answer: BlockedJson, *, everything: bool = False) -> None:
    """Draw it for a person."""
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
        out.print(f"{count(unnamed, 'packet')} of sources that are not remembered", style="dim")
    groups = list(_groups(answer["sources"], everything))
    shown = groups if everything else groups[:_ROWS]
    if shown:
        _table(out, shown, answer["time"])
    if more := len(groups) - len(shown) + answer["more"]:
        out.print(f"… and {more} more (--all)", style="dim")
    _show_hints(out, answer["sources"])


def headline(answer: BlockedJson) -> str:
    """The first line: how much, since when, and whether it was let in all the same."""
    if answer["down"]:
        return "The walls are down on request: nothing is refused. Put them up with: vllmwall up"
    sources = answer["sources"]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(_since(answer)))
    if not sources and not any(space["packets"] for space in answer["namespaces"]):
        return f"Nobody was refused since {since}"
    parts = []
    for mode, verb in (("enforce", "refused"), ("audit", "would have been refused (audit mode)")):
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
    """One source at many ports of one purpose is one fact, unless everything is asked."""
    groups: dict[object, list[RefusedJson]] = {}
    for one in sources:
        same = (one["source"], one["namespace"], one["mode"], one["proto"], one["role"])
        key = (same, one["workload"], one["port"] if everything else None)
        groups.setdefault(key, []).append(one)
    return iter(sorted(groups.values(), key=lambda group: -sum(one["packets"] for one in group)))


def _table(out: Console, groups: Iterable[list[RefusedJson]], now: float) -> None:
    from rich.table import Table

    wide = out.width >= _WIDE
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("SOURCE", overflow="fold", min_width=15)
    table.add_column("PORT", overflow="fold", min_width=9)
    table.add_column("ROLE", overflow="fold")
    table.add_column("WORKLOAD", overflow="fold" if wide else "ellipsis", no_wrap=not wide)
    table.add_column("PACKETS", justify="right", no_wrap=True)
    table.add_column("LAST", justify="right", no_wrap=True)
    for title in ("BYTES", "SINCE", "WHERE") if wide else ():
        table.add_column(title, no_wrap=True)
    for group in groups:
        table.add_row(*_row(group, now), *(_more(group) if wide else ()))
    out.print(table)


def _row(group: list[RefusedJson], now: float) -> list[str]:
    one = group[0]
    last = max(each["last"] for each in group)
    audit = " (let in)" if one["mode"] == "audit" else ""
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


def _show_hints(out: Console, sources: Iterable[RefusedJson]) -> None:
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
    """Fill in what DNS calls them, once each."""
    from vllmwall.cli.reverse_dns import names_of

    listed = list(sources)
    new = {one["source"] for one in listed} - known.keys()
    known.update(dict.fromkeys(new, ""))
    if new:
        known.update(names_of(new, _NAMES_SECONDS))
    for one in listed:
        one["name"] = str(printable(known[one["source"]]))
