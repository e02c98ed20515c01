"""`vllmwall audit`: security findings in live workloads, with remedies."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, cast

import click

from vllmwall.api.commands import STATUS
from vllmwall.api.errors import NoArguments
from vllmwall.api.units import count
from vllmwall.cli.ask import ask_if_running
from vllmwall.cli.command_line import Command
from vllmwall.cli.drawing import Column, Console, Table, Text
from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.failures import fail
from vllmwall.cli.parameters import config_option, only_option
from vllmwall.cli.terminal import print_answer, print_json, printable
from vllmwall.cli.without_daemon import failing_in_words

if TYPE_CHECKING:
    from vllmwall.inspect.audit.types import AuditAnswer, Finding, Unchecked

_SEVERITIES = ("critical", "high", "medium", "low", "info")
_COLOURS = {
    "critical": "bold red",
    "high": "red",
    "medium": "yellow",
    "low": "cyan",
    "info": "dim",
}


@click.command(cls=Command)
@click.option("--why", is_flag=True, help="Print why each finding matters and what to change.")
@click.option(
    "--fail-on",
    type=click.Choice([*_SEVERITIES, "never"]),
    default="high",
    show_default=True,
    help="Exit with 6 for a finding of this severity or a higher one.",
)
@click.option("--sarif", is_flag=True, help="Print SARIF 2.1.0, for code scanning.")
@config_option
@only_option
def audit(
    why: bool, fail_on: str, sarif: bool, config: str, only_namespace: tuple[str, ...]
) -> None:
    """Report security findings in live workloads.

    Reads command lines, environments and package versions of this node's workloads; changes
    nothing, sends nothing, and never prints a secret. Works without a daemon; with one, a port
    that its wall keeps closed lowers the severity.
    """
    if os.geteuid() != 0:
        fail("only root can read other users' environments", "denied", "Run the audit as root.")
    answer = cast("AuditAnswer", printable(_audit(fail_on, config, only_namespace)))
    if sarif:
        from vllmwall import __version__
        from vllmwall.inspect.audit.output import sarif as as_sarif

        print_json(as_sarif(answer, __version__))
    else:
        print_answer(answer, partial(_draw, why=why))
    sys.exit(Exit.FINDINGS if answer.failed else Exit.OK)


def _audit(fail_on: str, config: str, only: tuple[str, ...]) -> AuditAnswer:
    from pathlib import Path

    from vllmwall.config import load
    from vllmwall.inspect.audit.run import audit_node

    status = ask_if_running(STATUS, NoArguments())
    with failing_in_words():
        return audit_node(load(Path(config)), only, status, fail_on)


def _draw(out: Console, answer: AuditAnswer, *, why: bool) -> None:
    out.print(_verdict(answer), style="bold red" if answer.failed else "bold")
    for problem in answer.problems:
        out.print(f"! {problem}", style="red")
    if not answer.daemon:
        out.print("! no daemon answers, so every port counts as open", style="yellow")
    if answer.findings:
        out.print()
        out.print(_table(answer.findings, why=why))
    for line in _foot(answer, why=why):
        out.print(line, style="dim")


def _verdict(answer: AuditAnswer) -> str:
    workloads = count(answer.workloads, "workload")
    if not answer.workloads:
        return "No workload runs here: nothing to audit"
    if not answer.findings:
        return f"Nothing found on {workloads}"
    parts = [f"{number} {name}" for name, number in asdict(answer.counts).items() if number]
    return f"{count(len(answer.findings), 'finding')} on {workloads}: {', '.join(parts)}"


def _table(findings: Iterable[Finding], *, why: bool) -> Table:
    columns = (Column("SEVERITY", "whole"), Column("WORKLOAD", most=20), Column("FINDING"))
    rows = []
    for one in findings:
        words = Text(one.title, style="bold")
        words.append(f"\n{one.seen}", style="not bold")
        words.append(f"\n{one.id}, pid {one.pid}", style="not bold dim")
        for line in _details(one) if why else ():
            words.append(f"\n{line}", style="not bold")
        severity = Text(one.severity.value, style=_COLOURS[one.severity])
        rows.append((severity, Text(one.workload, style="cyan"), words))
    return Table(columns, rows)


def _details(one: Finding) -> Iterable[str]:
    yield f"Why: {one.why}"
    yield f"Change: {one.remedy}"
    yield f"Source: {one.source}"


def _foot(answer: AuditAnswer, *, why: bool) -> Iterable[str]:
    yield f"Known vulnerabilities: advisories as of {answer.advisories}"
    if answer.findings and not why:
        yield "Reasons and remedies: vllmwall audit --why"
    if answer.accepted:
        yield f"{count(len(answer.accepted), 'finding')} accepted by the configuration"
    yield from _unchecked(answer.unchecked)


def _unchecked(unchecked: Iterable[Unchecked]) -> Iterable[str]:
    """One line a reason: a check that was not made must not look like one that passed."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for one in unchecked:
        reasons.setdefault((one.workload, one.reason), []).append(one.id)
    for (workload, reason), ids in reasons.items():
        yield f"? {workload}: not checked, because {reason}: {', '.join(sorted(set(ids)))}"
