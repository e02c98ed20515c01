"""What `vllmwall watch` draws: one line of text after the other, for a width and a height."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from vllmwall.cli.events import line

if TYPE_CHECKING:
    from vllmwall.api.shapes import ListenerJson, StatusJson, WorkloadJson
    from vllmwall.api.watch_shapes import WatchJson

_EVENTS_AT_LEAST = 4
_COLOURS = {True: "bold green", False: "bold red", None: "bold yellow"}
_RULES = {"stands": "green", "missing": "bold red", "unknown": "yellow", "none": "dim"}


def picture(look: WatchJson, width: int, height: int, trouble: str = "", foot: str = "") -> Text:
    """The whole, ``height`` lines of at most ``width`` columns. ``trouble`` goes on top."""
    top = list(_top(look, trouble))
    middle = list(_workloads(look["status"]))
    room = max(0, height - len(top) - bool(foot) - 1)
    shown = _cut(middle, max(0, room - _EVENTS_AT_LEAST))
    last = [line(one) for one in look["events"]][-max(0, room - len(shown)) :]
    body = [*top, *shown, Text("LAST EVENTS", style="dim"), *last]
    body = body[: max(1, height - bool(foot))]
    if foot:
        body += [Text()] * (height - 1 - len(body)) + [Text(foot, style="dim")]
    for one in body:
        one.truncate(width, overflow="ellipsis")
    return Text("\n").join(body)


def _top(look: WatchJson, trouble: str) -> Iterator[Text]:
    status = look["status"]
    if trouble:
        yield Text(trouble, style="bold red")
    yield Text(status["verdict"], style="dim" if trouble else _COLOURS[status["safe"]])
    yield Text(_facts(look), style="dim")
    for problem in status["problems"][:3]:
        yield Text(f"! {problem}", style="red")


def _facts(look: WatchJson) -> str:
    status = look["status"]
    spaces = status["namespaces"]
    rate = look["refused_per_second"]
    refused = sum(space["refused_packets"] or 0 for space in spaces)
    parts = [
        time.strftime("%H:%M:%S", time.localtime(look["time"])),
        status["host"],
        status["mode"],
        f"refused {refused}" + ("" if rate is None else f", {rate:.1f}/s"),
        f"guards {sum(len(space['guarded']) for space in spaces)}",
        f"peers {len(status['peers']['networks'])}",
        f"walls {len(spaces)}",
    ]
    return " · ".join(parts)


def _workloads(status: StatusJson) -> Iterator[Text]:
    if not status["workloads"]:
        yield Text("no workload runs here", style="dim")
    for workload in status["workloads"]:
        heading = Text(f"{workload['stack']} ", style="bold")
        heading.append(workload["name"], style="bold cyan")
        heading.append(f"  pid {workload['root_pid']}, guard {workload['guard']['state']}", "dim")
        yield heading
        yield from _listeners(workload)


def _listeners(workload: WorkloadJson) -> Iterator[Text]:
    listeners = [one for one in workload["listeners"] if one["proto"] != "unix"]
    for one in sorted(listeners, key=lambda one: (one["role"] != "api", one["port"])):
        row = Text(f"  {_where(one):<28} {one['role']:<16} ")
        row.append(f"{_who(one):<20} ", style="yellow" if "public" in one["audience"] else "")
        yield row.append(one["rule"], style=_RULES[one["rule"]])


def _where(one: ListenerJson) -> str:
    host = f"[{one['addr']}]" if ":" in one["addr"] else one["addr"]
    return f"{one['proto']} {host}:{one['port']}"


def _who(one: ListenerJson) -> str:
    if one["rule"] == "none" and one["reason"]:
        return one["reason"].partition(":")[0][:20]
    return "anyone" if one["rule"] == "missing" else ", ".join(one["audience"])


def _cut(lines: Sequence[Text], room: int) -> list[Text]:
    if len(lines) <= room:
        return list(lines)
    left = len(lines) - max(0, room - 1)
    more = Text(f"  … {left} more lines: vllmwall status shows all", style="dim")
    return [*lines[: max(0, room - 1)], more][:room]
