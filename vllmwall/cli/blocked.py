"""`vllmwall blocked`: blocked sources, and which of them may be a forgotten peer."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import click

from vllmwall.api.blocked import Blocked, BlockedRequest, BlockedSource
from vllmwall.api.commands import BLOCKED
from vllmwall.api.units import count, how_long, how_much
from vllmwall.cli.ask import ask
from vllmwall.cli.command_line import Command, common
from vllmwall.cli.drawing import Column, Console, Table
from vllmwall.cli.follow import print_line, report_start, ticks, until_enough
from vllmwall.cli.terminal import print_answer, printable
from vllmwall.model import Mode

_NAMES_SECONDS = 2.0
_ROWS = 30
_HINTS = 5
_WIDE = 110
_VERBS = {Mode.ENFORCE: "blocked", Mode.AUDIT: "would have been blocked (audit mode)"}

_Key = tuple[str, str, str, str, int]


@dataclass(frozen=True, kw_only=True)
class NewlyBlocked:
    """A line of `vllmwall blocked --follow --json`: the packets since the last line."""

    version: int = 1
    time: float
    more_packets: int
    more_bytes: int
    refused: BlockedSource


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
    answer = ask(BLOCKED, BlockedRequest(all=everything))
    if wanted:
        answer = replace(answer, sources=_named(answer.sources, {}))
    print_answer(answer, partial(_draw, everything=everything))


def _follow(wanted: bool) -> None:
    before: dict[_Key, BlockedSource] | None = None
    known: dict[str, str] = {}
    for now in ticks():
        answer = ask(BLOCKED, BlockedRequest(newest=True))
        after = {_key(one): one for one in answer.sources}
        news = list(newly_blocked(before, after, now)) if before is not None else []
        if wanted:
            names = _named([line.refused for line in news], known)
            news = [replace(line, refused=one) for line, one in zip(news, names, strict=True)]
        for line in news:
            if common().as_json:
                print_line(line)
            else:
                click.echo(line_of(line))
        sys.stdout.flush()
        if before is None:
            report_start()
        before = after


def newly_blocked(
    before: Mapping[_Key, BlockedSource], after: Mapping[_Key, BlockedSource], now: float
) -> Iterator[NewlyBlocked]:
    """The differences between two answers, the oldest first."""
    for key, one in sorted(after.items(), key=lambda each: each[1].last):
        old = before.get(key)
        packets = one.packets - (old.packets if old else 0)
        if packets > 0:
            bytes_ = one.bytes - (old.bytes if old else 0)
            yield NewlyBlocked(time=now, more_packets=packets, more_bytes=bytes_, refused=one)


def line_of(line: NewlyBlocked) -> str:
    """For people: ``12:31:05 203.0.113.9 blocked at tcp 29500 (nccl, tiny): 3 packets``."""
    one = line.refused
    who = f"{one.source} ({one.name})" if one.name else one.source
    verb = "blocked" if one.mode is Mode.ENFORCE else "would be blocked"
    what = ", ".join(part for part in (one.role, one.workload) if part)
    where = f"{one.proto.value} {one.port}" + (f" ({what})" if what else "")
    when = time.strftime("%H:%M:%S", time.localtime(one.last))
    hint = f"; {one.hint}: {one.command}" if one.command else ""
    return f"{when} {who} {verb} at {where}: {count(line.more_packets, 'packet')}{hint}"


def _draw(out: Console, answer: Blocked, *, everything: bool) -> None:
    out.print(headline(answer), style="bold")
    for space in answer.namespaces:
        if space.error:
            out.print(f"! {space.name}: {space.error}", style="red")
        if space.full:
            out.print(
                f"! {space.name}: the kernel has no room to remember more sources, so some are "
                "missing here and these counts are lower bounds",
                style="yellow",
            )
    unnamed = sum(space.unnamed_packets for space in answer.namespaces)
    if unnamed:
        packets = count(unnamed, "packet")
        out.print(f"{packets} from sources that the kernel does not remember", style="dim")
    groups = list(_groups(answer.sources, everything))
    shown = groups if everything else groups[:_ROWS]
    if shown:
        out.print(_table(shown, answer.time, wide=out.width >= _WIDE))
    if more := len(groups) - len(shown) + answer.more:
        out.print(f"… and {more} more (--all)", style="dim")
    _draw_hints(out, answer.sources)


def headline(answer: Blocked) -> str:
    """The first line: how much was blocked, since when, or only counted."""
    if answer.down:
        return "The walls are down on request: nothing is blocked. Put them up: vllmwall up"
    sources = answer.sources
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(_since(answer)))
    if not sources and not any(space.packets for space in answer.namespaces):
        return f"Nothing was blocked since {since}"
    parts = []
    for mode, verb in _VERBS.items():
        mine = [one for one in sources if one.mode is mode]
        packets = sum(one.packets for one in answer.namespaces if one.mode is mode)
        packets = max(packets, sum(one.packets for one in mine))
        if packets:
            who = count(len({one.source for one in mine}), "source")
            parts.append(f"{who}, {count(packets, 'packet')} {verb}")
    return f"{'; '.join(parts)} since {since}"


def _since(answer: Blocked) -> float:
    return min([answer.since, *(one.since for one in answer.sources)])


def _groups(sources: Iterable[BlockedSource], everything: bool) -> Iterator[list[BlockedSource]]:
    """One source at many ports of one purpose is one row, unless everything is asked for."""
    groups: dict[object, list[BlockedSource]] = {}
    for one in sources:
        same = (one.source, one.namespace, one.mode, one.proto, one.role)
        key = (same, one.workload, one.port if everything else None)
        groups.setdefault(key, []).append(one)
    return iter(sorted(groups.values(), key=lambda group: -sum(one.packets for one in group)))


def _table(groups: Iterable[list[BlockedSource]], now: float, *, wide: bool) -> Table:
    columns = [
        Column("SOURCE", width=15),
        Column("PORT", width=9),
        Column("ROLE"),
        Column("WORKLOAD", "fold" if wide else "cut"),
        Column("PACKETS", "whole", right=True),
        Column("LAST", "whole", right=True),
        *(Column(title, "whole") for title in (("BYTES", "SINCE", "WHERE") if wide else ())),
    ]
    return Table(columns, ([*_row(one, now), *(_more(one) if wide else ())] for one in groups))


def _row(group: list[BlockedSource], now: float) -> list[str]:
    one = group[0]
    last = max(each.last for each in group)
    audit = " (not dropped)" if one.mode is Mode.AUDIT else ""
    return [
        f"{one.source}\n  {one.name}" if one.name else one.source,
        f"{one.proto.value} {_ports(group)}",
        one.role or "-",
        one.workload or "-",
        f"{sum(each.packets for each in group)}{audit}",
        f"{how_long(now - last)} ago",
    ]


def _more(group: list[BlockedSource]) -> list[str]:
    since = min(each.since for each in group)
    return [
        how_much(sum(each.bytes for each in group)),
        time.strftime("%m-%d %H:%M:%S", time.localtime(since)),
        group[0].namespace,
    ]


def _ports(group: list[BlockedSource]) -> str:
    ports = sorted(one.port for one in group)
    return str(ports[0]) if len(ports) == 1 else f"{ports[0]}…{ports[-1]} ({len(ports)})"


def _draw_hints(out: Console, sources: Iterable[BlockedSource]) -> None:
    hinted: dict[str, list[BlockedSource]] = {}
    for one in sources:
        if one.command:
            hinted.setdefault(one.command, []).append(one)
    for command, group in list(hinted.items())[:_HINTS]:
        roles = ", ".join(sorted({one.role for one in group}))
        where = f"{group[0].proto.value} {_ports(group)}"
        out.print(f"\n{group[0].source} keeps trying {where} ({roles}): {group[0].hint}.")
        out.print(f"  {command}", style="bold", soft_wrap=True)
    if len(hinted) > _HINTS:
        out.print(
            f"… and {len(hinted) - _HINTS} more like it: vllmwall blocked --json", style="dim"
        )


def _key(one: BlockedSource) -> _Key:
    return one.source, one.namespace, one.mode, one.proto, one.port


def _named(sources: Collection[BlockedSource], known: dict[str, str]) -> tuple[BlockedSource, ...]:
    """The sources with their names from DNS, each looked up once."""
    from vllmwall.cli.reverse_dns import names_of

    new = {one.source for one in sources} - known.keys()
    known.update(dict.fromkeys(new, ""))
    if new:
        known.update(names_of(new, _NAMES_SECONDS))
    return tuple(replace(one, name=str(printable(known[one.source]))) for one in sources)
