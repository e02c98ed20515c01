"""`vllmwall explain`: is this port open to that source, and what says so."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

import click

from vllmwall.api.errors import ControlError
from vllmwall.cidr import host_port
from vllmwall.cli.ask import ask_if_running
from vllmwall.cli.command_line import Command
from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.failures import fail, fail_as
from vllmwall.cli.parameters import config_option, only_option
from vllmwall.cli.terminal import print_answer, printable
from vllmwall.cli.without_daemon import failing_in_words, runtime_dir

if TYPE_CHECKING:
    from rich.console import Console

    from vllmwall.api.explain.shape import (
        AnswerJson,
        ExplainJson,
        HookJson,
        PurposeJson,
        SocketJson,
        SourceJson,
    )

_COLOURS = {"open": "bold green", "closed": "bold red", "depends": "bold yellow"}
_EXITS = {"open": Exit.OK, "closed": Exit.CLOSED}
_WORDS = frozenset({"peer", "stranger"})
_MOST = 256  # answers
Row = tuple[str, str]


@click.command(cls=Command)
@click.argument("source", metavar="SRC[:PORT]")
@click.argument("target", metavar="DPORT|ROLE|WORKLOAD[/ROLE]")
@click.option("--namespace", metavar="NAME", help="Only in this network namespace.")
@click.option("--proto", type=click.Choice(["tcp", "udp"]), help="Only over this protocol.")
@click.option("--to", metavar="ADDRESS", help="The address of this node that it connects to.")
@click.option("--way", is_flag=True, help="Show every rule on the packet's way.")
@config_option
@only_option
def explain(
    *,
    source: str,
    target: str,
    namespace: str | None,
    proto: str | None,
    to: str | None,
    way: bool,
    config: str,
    only_namespace: tuple[str, ...],
) -> None:
    """Explain whether a source can connect to a port, and why.

    SRC is an address ([v6]:PORT with a port), a host name, or the words peer or stranger, which
    stand for any of them. The table in the kernel is read back and evaluated for the first
    packet; other programs' tables are named and not evaluated. Sends nothing.

    Exits with 0 when all is open, 8 when something is closed, 9 when that depends or is unknown.
    """
    words, port = source_of(source)
    arguments: dict[str, object] = {
        "sources": words if set(words) <= _WORDS else _addresses(words),
        "source_port": port,
        "target": target,
        "namespace": namespace,
        "proto": proto,
        "to": to,
    }
    found = _with_hooks(_answered(config, only_namespace, arguments))
    print_answer(found, partial(_draw, way=way))
    sys.exit(_EXITS.get(found["verdict"], Exit.UNDECIDED))


def _answered(config: str, only: tuple[str, ...], arguments: dict[str, object]) -> ExplainJson:
    """All answers, in parts: the daemon has other things to do between two of them."""
    from vllmwall.api.explain.reasons import worst

    whole: ExplainJson | None = None
    while whole is None or len(whole["answers"]) < min(whole["total"], _MOST):
        skip = {"skip": len(whole["answers"]) if whole else 0}
        answer = ask_if_running("explain", {**arguments, **skip})
        if answer is None:
            answer = _by_ourselves(config, only, {**arguments, **skip})
        part = cast("ExplainJson", answer)
        if whole is None:
            whole = part
        elif part["answers"]:
            whole["answers"] += part["answers"]
        else:  # listeners went meanwhile
            break
    whole["verdict"] = worst(one["verdict"] for one in whole["answers"])
    if whole["total"] > _MOST:
        problem = f"{whole['total']} answers, of which the first {_MOST} are shown: ask about less"
        whole["problems"].append(problem)
    return whole


def source_of(text: str) -> tuple[list[str], int | None]:
    """The host and the port of ``SRC[:PORT]``. Ends the command where the port is none."""
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        fail(f"{text}: {port} is not a port", "usage", "Write 10.0.0.5:40000 or [fd00::5]:40000.")
    return [host], int(port) if port else None


def _draw(out: Console, answer: ExplainJson, *, way: bool) -> None:
    for problem in answer["problems"]:
        out.print(f"! {problem}", style="yellow")
    for one in answer["answers"]:
        _show_answer(out, one, way=way)
    if answer["hooks"]:
        out.print()
        out.print("Not evaluated: other programs' chains that such a packet meets too", style="dim")
        for hook in answer["hooks"]:
            out.print(f"  {_hook(hook)}", style="yellow" if hook["policy"] == "drop" else "dim")


def _show_answer(out: Console, one: AnswerJson, *, way: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    head = Text(one["verdict"].upper(), style=_COLOURS.get(one["verdict"], "bold"))
    head.append(f"  {one['proto']} {one['source']} to ", style="not bold default")
    head.append(f"{host_port(one['address'], one['port'])} in {one['namespace']}", style="not bold")
    out.print(head)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in _rows(one, way=way):
        table.add_row(f"  {name}", Text(words))
    out.print(table)


def _rows(one: AnswerJson, *, way: bool) -> Iterator[Row]:
    yield "because", one["reason"]
    yield from _rules(one, way=way)
    if one["outcomes"]:
        yield "can be", " or ".join(one["outcomes"])
    if one["socket"]:
        yield "socket", _socket(one["socket"])
    if one["purpose"]:
        yield from _purpose(one["purpose"])
    elif one["socket"]:
        yield "workload", "none: no workload's listener"
    yield "source", "; ".join(map(_source, one["source_is"])) or "in no peer source and no group"


def _rules(one: AnswerJson, *, way: bool) -> Iterator[Row]:
    """The elements that matched, and the rule at the end; or all the way."""
    name = "way" if way else "element"
    for step in one["way"]:
        element = f"{step['set']}: {step['element']}" if step["set"] else ""
        if way:
            yield name, f"{step['chain']}: {step['rule']}{element and f' [{element}]'}"
        elif element:
            yield name, element
        name = "" if way or element else name
    if one["decided"] and not way:
        yield "rule", f"{one['decided']['chain']}: {one['decided']['rule']}"


def _socket(one: SocketJson) -> str:
    who = ", ".join(map(str, one["pids"]))
    command = f"{one['command']} ({who})" if who else "no process known"
    where = f"{one['proto']} {host_port(one['addr'], one['port'])}"
    return f"{where}, {command}, user {one['user']}"


def _purpose(one: PurposeJson) -> Iterator[Row]:
    yield "workload", f"{one['workload']} ({one['stack']}, {one['root_pid']})"
    yield "role", f"{one['role']}, {one['confidence']:.0%} sure"
    for evidence in one["evidence"]:
        yield "", f"{evidence['kind']}: {evidence['detail']}"
    if one["no_rule"]:
        yield "no rule", one["no_rule"]
    yield "audience", f"{', '.join(one['audience'])} ({one['audience_from']})"


def _source(one: SourceJson) -> str:
    where = one["where"] or f"{one['kind']} {one['name']}".strip()
    what = "banned" if one["kind"] == "ban" else f"of {one['audience']}"
    return f"{one['network']} {what} ({where}{_until(one['expires'])})"


def _until(expires: float | None) -> str:
    import time

    if expires is None:
        return ""
    return f", until {time.strftime('%Y-%m-%d %H:%M', time.localtime(expires))}"


def _hook(one: HookJson) -> str:
    priority = "" if one["priority"] is None else f", priority {one['priority']}"
    return f"{one['hook']}: {one['table']} {one['chain']}{priority}, policy {one['policy']}"


def _addresses(names: Iterable[str]) -> list[str]:
    """Addresses as they are; those of a name by this process, which may wait for DNS."""
    import socket

    found: dict[str, None] = {}
    for name in names:
        try:
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            message = f"{name}: not an IP address, and the name does not resolve ({error})"
            fail(message, hint="Use an address, a host name, `peer` or `stranger`.")
        found.update((str(one[4][0]).partition("%")[0], None) for one in answers)
    return list(found)


def _by_ourselves(
    config: str, only: tuple[str, ...], arguments: dict[str, object]
) -> dict[str, object]:
    """Without a daemon: from the table in the kernel and one look at the node."""
    from pathlib import Path

    from vllmwall.api.explain.question import explain_once

    if os.geteuid() != 0:
        fail("no daemon answers", "denied", "Run this as root: only root can read the table.")
    with failing_in_words():
        try:
            found = explain_once(Path(config), runtime_dir(), only, arguments)
        except ControlError as error:
            fail_as(error)
    found["problems"].insert(0, "no daemon answers: the table in the kernel was read by itself")
    return cast("dict[str, object]", printable(found))


def _with_hooks(answer: ExplainJson) -> ExplainJson:
    """What others add, read by this process and its children: never by the daemon."""
    from vllmwall.cli.published_ports import settle
    from vllmwall.linux.netns import run_in
    from vllmwall.observe.namespaces import Namespaces, every_namespace
    from vllmwall.observe.other_firewalls import other_chains, published_ports

    if os.geteuid() != 0:
        answer["problems"].append("what other tables add is not known: only root can read that")
        return answer
    names = {one["namespace"] for one in answer["answers"]}
    namespaces = Namespaces()
    for inode, path in every_namespace().items():
        if (name := namespaces.name(inode)) not in names:
            continue
        try:
            hooks = run_in(path, other_chains)
            settle(answer, name, run_in(path, published_ports))
        except OSError as error:
            answer["problems"].append(f"{name}: what other tables add is not known: {error}")
            continue
        answer["problems"] += [f"{name}: {problem}" for problem in hooks.problems]
        for one in hooks.found:
            answer["hooks"].append(
                {
                    "namespace": name,
                    "table": str(printable(one.table)),
                    "chain": str(printable(one.name)),
                    "hook": one.hook,
                    "priority": one.priority,
                    "policy": one.policy,
                }
            )
    return answer
