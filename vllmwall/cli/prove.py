"""`vllmwall prove`: real packets against the active walls."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, cast

import click

from vllmwall.api.commands import STATUS
from vllmwall.api.errors import NoArguments
from vllmwall.cli.ask import ask
from vllmwall.cli.command_line import Command
from vllmwall.cli.drawing import Column, Console, Table, Text
from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.failures import fail
from vllmwall.cli.terminal import print_answer, printable

if TYPE_CHECKING:
    from vllmwall.api.status_answer import Status
    from vllmwall.inspect.prove import ProbeReport, Proof
    from vllmwall.model import Address

_MARKS = {"as expected": "✓", "different": "✗", "unproven": "?", "gone": "-"}
_COLOURS = {
    "as expected": "green",
    "different": "bold red",
    "unproven": "bold yellow",
    "gone": "dim",
}
_COLUMNS = (
    Column("", "whole"),
    Column("LISTENER", width=21),
    Column("ROLE"),
    Column("FROM", "whole"),
    Column("EXPECTED"),
    Column("SEEN", width=16),
)


@click.command(cls=Command)
@click.option(
    "--peer",
    multiple=True,
    metavar="ADDRESS",
    help="Also send probes from this address; repeatable.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for an answer.",
)
def prove(peer: tuple[str, ...], patience: float) -> None:
    """Send test packets to every listener from an untrusted address.

    Creates a temporary network namespace with an untrusted address (such as 198.51.100.77) and
    a veth pair into each network namespace with a workload, and removes them at the end. Workloads
    do not notice: only an API gets a full connection. With --peer, packets come from that address
    too; its own connections are not affected.

    Exits with 0 when every probe was as expected, otherwise with 7. Needs root.
    """
    if os.geteuid() != 0:
        fail("prove creates a network namespace and raw packets", "denied", "Run this as root.")
    peers = _addresses(peer)
    status = ask(STATUS, NoArguments())
    with _ending_in_order():
        answer = cast("Proof", printable(_proof(status, peers, patience)))
    print_answer(answer, _draw)
    sys.exit(Exit.OK if answer.as_expected else Exit.DISPROVED)


def _draw(out: Console, answer: Proof) -> None:
    from vllmwall.inspect.prove import summary

    colour = "bold green" if answer.as_expected else "bold red"
    out.print(summary(answer), style=colour if answer.probes else "bold yellow")
    for problem in answer.problems:
        out.print(f"! {problem}", style="yellow")
    for name, owner, probes in _groups(answer.probes):
        out.print()
        out.print(Text(owner, style="bold cyan").append(f"  in {name}", style="dim"))
        out.print(_table(probes))
    for each in answer.skipped if answer.probes else ():
        reason = each.reason.partition(":")[0]
        out.print(f"not probed: {each.listener} ({each.role}): {reason}", style="dim")
    if answer.as_expected:
        return
    for space in answer.namespaces:
        for line in space.surroundings:
            out.print(f"{space.name}: {line}", style="dim")


def _table(probes: Collection[ProbeReport]) -> Table:
    rows = []
    for alike in _alike(probes):
        one, style = alike[0], _COLOURS[alike[0].outcome.value]
        mark = Text(_MARKS[one.outcome.value], style=style)
        met = Text(one.met, style="" if one.outcome.value == "as expected" else style)
        rows.append((mark, _places(alike), one.role, one.source_kind, _expected(one), met))
    return Table(_COLUMNS, rows)


def _alike(probes: Collection[ProbeReport]) -> Collection[list[ProbeReport]]:
    """Probes that differ only in the port share a row."""
    groups: dict[tuple[str, ...], list[ProbeReport]] = {}
    for one in probes:
        fate = (one.expected.value, one.seen, one.by, one.outcome.value)
        key = (one.proto, one.address, one.role, one.source_kind, *fate)
        groups.setdefault(key, []).append(one)
    return groups.values()


def _places(alike: list[ProbeReport]) -> str:
    first, *others = sorted(alike, key=lambda one: one.port)
    if not others:
        return first.place
    return f"{first.place}…{others[-1].port} ({len(alike)})"


def _expected(one: ProbeReport) -> str:
    return "not by us" if one.expected.value.startswith("not") else one.expected.value


def _groups(probes: Collection[ProbeReport]) -> Iterator[tuple[str, str, list[ProbeReport]]]:
    """By namespace and workload, in the order of the probes; the API first."""
    groups: dict[tuple[str, str], list[ProbeReport]] = {}
    for one in sorted(probes, key=lambda one: one.role != "api"):
        pid = f", pid {one.root_pid}" if one.root_pid else ""
        owner = f"{one.workload or 'this node'}{pid}"
        groups.setdefault((one.namespace, owner), []).append(one)
    for (name, owner), found in sorted(groups.items()):
        yield name, owner, found


def _addresses(texts: Collection[str]) -> tuple[Address, ...]:
    from ipaddress import ip_address

    try:
        return tuple(ip_address(text) for text in texts)
    except ValueError as error:
        raise click.BadParameter(f"--peer: {error}") from error


def _proof(status: Status, peers: tuple[Address, ...], patience: float) -> Proof:
    from vllmwall.enforce.backend import EnforceError
    from vllmwall.inspect.prove import ProveError, proof_of, question_of
    from vllmwall.inspect.prove import prove as proved

    question = question_of(status, peers, patience)
    begun = time.time()
    try:
        return proof_of(proved(question), status, begun, question.problems)
    except PermissionError as error:
        fail(f"prove needs all capabilities of root: {error}", "denied")
    except (OSError, EnforceError, ProveError) as error:
        fail(f"no probes were sent: {error}")


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """The first signal ends the command like an error, so that everything is removed."""
    stopping = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, _: FrameType | None) -> NoReturn:
        for each in stopping:
            signal.signal(each, signal.SIG_IGN)
        click.echo("vllmwall: stopped; removing the temporary network namespace", err=True)
        sys.exit(128 + number)

    before = {each: signal.signal(each, stop) for each in stopping}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
