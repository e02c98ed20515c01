"""`vllmwall audit`: what else is wrong with what runs here, and what to change."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

import click

from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.terminal import console, fail, print_json, printable
from vllmwall.cli.without_daemon import asked, config_option, errors_in_words, only_option

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from vllmwall.inspect.audit.shape import AuditJson, FindingJson, UncheckedJson

_SEVERITIES = ("critical", "high", "medium", "low", "info")
_COLOURS = {
    "critical": "bold red",
    "high": "red",
    "medium": "yellow",
    "low": "cyan",
    "info": "dim",
}


@click.command()
@click.option("--why", is_flag=True, help="Say why each finding matters and what to change.")
@click.option(
    "--fail-on",
    type=click.Choice([*_SEVERITIES, "never"]),
    default="high",
    show_default=True,
    help="Exit with 6 when a finding is as bad as this or worse.",
)
@click.option("--json", "form", flag_value="json", help="For machines.")
@click.option("--sarif", "form", flag_value="sarif", help="SARIF 2.1.0, for code scanning.")
@config_option
@only_option
def audit(
    why: bool, fail_on: str, form: str | None, config: str, only_namespace: tuple[str, ...]
) -> None:
    """Say what else is wrong with live workloads, and what to change.

    Reads command lines, environments and package versions of this node's workloads; changes
    nothing, sends nothing, and never prints a secret. Works without a daemon; with one, ports
    that its wall keeps closed weigh less.
    """
    if os.geteuid() != 0:
        fail("audit reads other users' command lines and environments: run it as root", Exit.DENIED)
    answer = cast("AuditJson", printable(_audit(fail_on, config, only_namespace)))
    if form == "sarif":
        from vllmwall import __version__
        from vllmwall.inspect.audit.output import sarif

        print_json(sarif(answer, __version__))
    elif form == "json":
        print_json(answer)
    else:
        show(console(), answer, why=why)
    sys.exit(Exit.FINDINGS if answer["failed"] else Exit.OK)


def _audit(fail_on: str, config: str, only: tuple[str, ...]) -> AuditJson:
    import platform
    from datetime import date
    from pathlib import Path

    from vllmwall.config import load
    from vllmwall.inspect.audit.output import audit_json
    from vllmwall.inspect.audit.run import audit_node

    status = asked("status")
    with errors_in_words():
        whole = audit_node(load(Path(config)), only, status, date.today())
    return audit_json(
        whole.audit,
        host=platform.node(),
        time=time.time(),
        workloads=whole.workloads,
        servers=whole.servers,
        daemon=status is not None,
        fail_on=fail_on,
    )


def show(out: Console, answer: AuditJson, *, why: bool) -> None:
    """Draw an audit for a person."""
    out.print(_verdict(answer), style="bold red" if answer["failed"] else "bold")
    for problem in answer["problems"]:
        out.print(f"! {problem}", style="red")
    if not answer["daemon"]:
        out.print("! no daemon answers: every port counts as open", style="yellow")
    if answer["findings"]:
        out.print()
        out.print(_table(answer["findings"], why=why))
    for line in _foot(answer, why=why):
        out.print(line, style="dim")


def _verdict(answer: AuditJson) -> str:
    workloads = _count(answer["workloads"], "workload")
    if not answer["workloads"]:
        return "No workload runs here: nothing to audit"
    if not answer["findings"]:
        return f"Nothing found on {workloads}"
    counts = cast("Mapping[str, int]", answer["counts"])
    parts = [f"{counts[name]} {name}" for name in _SEVERITIES if counts[name]]
    return f"{_count(len(answer['findings']), 'finding')} on {workloads}: {', '.join(parts)}"


def _table(findings: Iterable[FindingJson], *, why: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("SEVERITY", no_wrap=True)
    table.add_column("WORKLOAD", overflow="fold", max_width=20)
    table.add_column("FINDING", overflow="fold")
    for one in findings:
        words = Text(one["title"], style="bold")
        words.append(f"\n{one['seen']}", style="not bold")
        words.append(f"\n{one['id']}, pid {one['pid']}", style="not bold dim")
        for line in _details(one) if why else ():
            words.append(f"\n{line}", style="not bold")
        severity = Text(one["severity"], style=_COLOURS[one["severity"]])
        table.add_row(severity, Text(one["workload"], style="cyan"), words)
    return table


def _details(one: FindingJson) -> Iterable[str]:
    yield f"Why: {one['why']}"
    yield f"Change: {one['remedy']}"
    yield f"Source: {one['source']}"


def _foot(answer: AuditJson, *, why: bool) -> Iterable[str]:
    if answer["findings"] and not why:
        yield "What to change: vllmwall audit --why"
    if answer["accepted"]:
        yield f"{_count(len(answer['accepted']), 'finding')} accepted by the configuration"
    yield from _unchecked(answer["unchecked"])


def _unchecked(unchecked: Iterable[UncheckedJson]) -> Iterable[str]:
    """One line a reason: what could not be checked must not look like all is well."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for one in unchecked:
        reasons.setdefault((one["workload"], one["reason"]), []).append(one["id"])
    for (workload, reason), ids in reasons.items():
        yield f"? {workload}: not checked, because {reason}: {', '.join(sorted(set(ids)))}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
