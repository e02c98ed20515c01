"""`vllmwall explain`: whether a port is open to a source, and what decides it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, cast

import click

from vllmwall.api.commands import EXPLAIN
from vllmwall.cidr import host_port
from vllmwall.cli.ask import ask_if_running
from vllmwall.cli.command_line import Command, common
from vllmwall.cli.drawing import Column, Console, Table, Text
from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.failures import fail
from vllmwall.cli.parameters import config_option, only_option
from vllmwall.cli.terminal import console, print_json, printable
from vllmwall.cli.without_daemon import failing_in_words, runtime_dir

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from vllmwall.api.explain.answer import (
        Answer,
        Explanation,
        Hook,
        Membership,
        Purpose,
        ReachedSocket,
    )
    from vllmwall.api.explain.targets import Question
    from vllmwall.observe.other_rules import OtherRules

_COLOURS = {"open": "bold green", "closed": "bold red", "depends": "bold yellow"}
_EXITS = {"open": Exit.OK, "closed": Exit.CLOSED}
_WORDS = frozenset({"peer", "stranger"})
_MOST = 256  # answers
_COLUMNS = (Column("", "whole"), Column(""))
Row = tuple[str, str]


@click.command(cls=Command)
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="PORT|WORKLOAD")
@click.option("--namespace", default="", metavar="NAME", help="Only in this network namespace.")
@click.option("--proto", type=click.Choice(["tcp", "udp"]), help="Only over this protocol.")
@click.option("--to", metavar="ADDRESS", help="The address of this node that it connects to.")
@click.option("--way", is_flag=True, help="Show every rule on the packet's way.")
@config_option
@only_option
def explain(
    *,
    source: str,
    target: str,
    namespace: str,
    proto: Literal["tcp", "udp"] | None,
    to: str | None,
    way: bool,
    config: str,
    only_namespace: tuple[str, ...],
) -> None:
    """Explain whether a source can connect to a port, and why.

    SOURCE is an address, a host name, `peer` (any trusted peer) or `stranger` (any other address).
    PORT is a number; WORKLOAD is a name that `vllmwall status` shows, for all its ports. The
    table in the kernel is read back and evaluated for the first packet of a connection; as root
    those of other programs too: a rule that is not understood makes the verdict unknown. Sends
    nothing.

    Exits with 0 when all is open, 8 when something is closed, 9 when that depends or is unknown.
    """
    from vllmwall.api.explain.targets import Question

    sources = (source,) if source in _WORDS else _addresses(source)
    to_address = _address(to) if to else None
    question = Question(sources, target, namespace, proto or "", to_address)
    found = _explanation(config, only_namespace, question)
    if common().as_json:
        print_json(found)
    else:
        _draw(console(), found, way=way)
    sys.exit(_EXITS.get(found.verdict, Exit.UNDECIDED))


def _explanation(config: str, only: tuple[str, ...], question: Question) -> Explanation:
    """All answers, in parts: the daemon has other things to do between two of them."""
    from dataclasses import replace

    from vllmwall.api.explain.answer import joined, worst
    from vllmwall.api.explain.firewalls import judged_by_others, read

    first = _part(config, only, question)
    rules: Mapping[str, OtherRules] = {}
    if os.geteuid() == 0:
        firewalls, rules = read(first.namespaces, question.target)
        question = replace(question, firewalls=firewalls)
        first = _part(config, only, question)
    parts, known = [first], len(first.answers)
    while known < min(first.total, _MOST):
        parts.append(_part(config, only, replace(question, skip=known)))
        if not parts[-1].answers:  # listeners ended meanwhile
            break
        known += len(parts[-1].answers)
    found = joined(parts)
    answers = tuple(judged_by_others(one, rules.get(one.namespace)) for one in found.answers)
    return replace(found, answers=answers, verdict=worst(answers))


def _part(config: str, only: tuple[str, ...], question: Question) -> Explanation:
    """An answer of the daemon; without one, from the table in the kernel and a look at the node."""
    return ask_if_running(EXPLAIN, question) or _without_daemon(config, only, question)


def _draw(out: Console, answer: Explanation, *, way: bool) -> None:
    for problem in answer.problems:
        out.print(f"! {problem}", style="yellow")
    for one in answer.answers:
        _show_answer(out, one, way=way)
    if answer.hooks:
        out.print()
        out.print("Chains of other programs that such a packet meets", style="dim")
        for hook in answer.hooks:
            out.print(f"  {_hook(hook)}", style="yellow" if hook.policy == "drop" else "dim")


def _show_answer(out: Console, one: Answer, *, way: bool) -> None:
    head = Text(one.verdict.upper(), style=_COLOURS.get(one.verdict, "bold"))
    head.append(f"  {one.proto.value} {one.source} to ", style="not bold default")
    head.append(f"{host_port(one.address, one.port)} in {one.namespace}", style="not bold")
    out.print(head)
    rows = [(Text(f"  {name}", "dim"), words) for name, words in _rows(one, way=way)]
    out.print(Table(_COLUMNS, rows))


def _rows(one: Answer, *, way: bool) -> Iterator[Row]:
    yield "because", one.reason
    yield from _rules(one, way=way)
    if one.outcomes:
        yield "can be", " or ".join(one.outcomes)
    if one.socket:
        yield "socket", _socket(one.socket)
    if one.purpose:
        yield from _purpose(one.purpose)
    elif one.socket:
        yield "workload", "none: no workload's listener"
    yield "source", "; ".join(map(_source, one.source_is)) or "in no peer source and no group"


def _rules(one: Answer, *, way: bool) -> Iterator[Row]:
    """The elements that matched and the last rule; or every rule."""
    name = "way" if way else "element"
    for step in one.way:
        element = f"{step.set}: {step.element}" if step.set else ""
        if way:
            yield name, f"{step.chain}: {step.rule}{element and f' [{element}]'}"
        elif element:
            yield name, element
        name = "" if way or element else name
    if one.decided and not way:
        yield "rule", f"{one.decided.chain}: {one.decided.rule}"


def _socket(one: ReachedSocket) -> str:
    who = ", ".join(map(str, one.pids))
    command = f"{one.command} ({who})" if who else "no process known"
    where = host_port(one.addr, one.port)
    return f"{one.proto.value} {where}, {command}, user {one.user}"


def _purpose(one: Purpose) -> Iterator[Row]:
    yield "workload", f"{one.workload} ({one.stack}, {one.root_pid})"
    yield "role", f"{one.role}, {one.confidence:.0%} sure"
    for evidence in one.evidence:
        yield "", f"{evidence.kind}: {evidence.detail}"
    if one.no_rule:
        yield "no rule", one.no_rule
    yield "audience", f"{', '.join(one.audience)} ({one.audience_from})"


def _source(one: Membership) -> str:
    where = one.where or f"{one.kind} {one.name}".strip()
    what = "banned" if one.kind == "ban" else f"of {one.audience}"
    return f"{one.network} {what} ({where}{_until(one.expires)})"


def _until(expires: float | None) -> str:
    import time

    if expires is None:
        return ""
    return f", until {time.strftime('%Y-%m-%d %H:%M', time.localtime(expires))}"


def _hook(one: Hook) -> str:
    priority = "" if one.priority is None else f", priority {one.priority}"
    return f"{one.hook}: {one.table} {one.chain}{priority}, policy {one.policy}"


def _addresses(name: str) -> tuple[str, ...]:
    """An address as it is; those of a host name, resolved by this process, which may wait."""
    import socket

    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        message = f"{name}: not an IP address, and the name does not resolve ({error})"
        fail(message, hint="Use an address, a host name, `peer` or `stranger`.")
    return tuple(dict.fromkeys(str(one[4][0]).partition("%")[0] for one in answers))


def _address(text: str) -> IPv4Address | IPv6Address:
    from ipaddress import ip_address

    try:
        return ip_address(text)
    except ValueError:
        fail(f"--to {text}: not an IP address", "usage", "Use an address of this node.")


def _without_daemon(config: str, only: tuple[str, ...], question: Question) -> Explanation:
    from pathlib import Path

    from vllmwall.api.explain.question import explain_once

    if os.geteuid() != 0:
        fail("no daemon answers", "denied", "Run this as root: only root can read the table.")
    with failing_in_words():
        found = explain_once(Path(config), runtime_dir(), only, question)
    return cast("Explanation", printable(found))
