"""`vllmwall prove`: real packets against the walls that stand."""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, cast

import click

from vllmwall.cli.exit_codes import Exit
from vllmwall.cli.terminal import ask, console, fail, print_json, printable

if TYPE_CHECKING:
    from rich.console import Console

    from vllmwall.api.shapes import StatusJson
    from vllmwall.inspect.prove import Finding, Question
    from vllmwall.inspect.prove.shape import ProveJson, TryJson
    from vllmwall.model import Address, Network, Policy

_COLOURS = {
    "as expected": "green",
    "different": "bold red",
    "unproven": "bold yellow",
    "gone": "dim",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--peer", multiple=True, metavar="ADDRESS", help="Try from there too; repeatable.")
@click.option(
    "--patience",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a closed port is waited for.",
)
def prove(as_json: bool, peer: tuple[str, ...], patience: float) -> None:
    """Knock at every listener as a stranger, and see that only the API opens.

    Makes a network namespace with an address that nobody has (192.0.2.0/24 and its like) and a
    cable into each network namespace with a workload, sends real packets, and takes everything
    away again. No workload notices: only an API is really connected to. With --peer, from that
    address too; its own connections are not touched.

    Exits with 0 when all is as expected, else with 7. Needs root.
    """
    if os.geteuid() != 0:
        fail("prove makes a network namespace and sends raw packets: ask as root", Exit.DENIED)
    peers = _addresses(peer)
    status = cast("StatusJson", ask("status"))
    with _ending_in_order():
        answer = cast("ProveJson", printable(_proof(status, peers, patience)))
    if as_json:
        print_json(answer)
    else:
        show(console(), answer)
    sys.exit(Exit.OK if answer["as_expected"] else Exit.DISPROVED)


def show(out: Console, answer: ProveJson) -> None:
    """Draw a proof for a person."""
    from rich.table import Table
    from rich.text import Text

    from vllmwall.inspect.prove import report

    colour = "bold green" if answer["as_expected"] else "bold red"
    out.print(report.summary(answer), style=colour if answer["tries"] else "bold yellow")
    for problem in answer["problems"]:
        out.print(f"! {problem}", style="yellow")
    for name, owner, tries in _groups(answer["tries"]):
        out.print()
        out.print(Text(owner, style="bold cyan").append(f"  in {name}", style="dim"))
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("", no_wrap=True)
        table.add_column("LISTENER", overflow="fold", min_width=21)
        table.add_column("ROLE", overflow="fold")
        table.add_column("FROM", no_wrap=True)
        table.add_column("EXPECTED", overflow="fold")
        table.add_column("SEEN", overflow="fold", min_width=16)
        for alike in _alike(tries):
            one, style = alike[0], _COLOURS[alike[0]["outcome"]]
            table.add_row(
                Text(report.MARKS[one["outcome"]], style=style),
                _places(alike),
                one["role"],
                one["source_kind"],
                _expected(one),
                Text(report.seen(one), style="" if one["outcome"] == "as expected" else style),
            )
        out.print(table)
    for each in answer["untried"] if answer["tries"] else ():
        reason = each["reason"].partition(":")[0]
        out.print(f"not tried: {each['listener']} ({each['role']}): {reason}", style="dim")
    if answer["as_expected"]:
        return
    for space in answer["namespaces"]:
        for line in space["surroundings"]:
            out.print(f"{space['name']}: {line}", style="dim")


def _alike(tries: Collection[TryJson]) -> Collection[list[TryJson]]:
    """Tries that differ by nothing but the port share a row."""
    groups: dict[tuple[str, ...], list[TryJson]] = {}
    for one in tries:
        fate = (one["expected"], one["seen"], one["by"], one["outcome"])
        key = (one["proto"], one["address"], one["role"], one["source_kind"], *fate)
        groups.setdefault(key, []).append(one)
    return groups.values()


def _places(alike: list[TryJson]) -> str:
    from vllmwall.inspect.prove import report

    first, *others = sorted(alike, key=lambda one: one["port"])
    if not others:
        return report.place(first)
    return f"{report.place(first)}…{others[-1]['port']} ({len(alike)})"


def _expected(one: TryJson) -> str:
    return "not by us" if one["expected"].startswith("not") else one["expected"]


def _groups(tries: Collection[TryJson]) -> Iterator[tuple[str, str, list[TryJson]]]:
    """By namespace and workload, in the order of the tries; the API first."""
    groups: dict[tuple[str, str], list[TryJson]] = {}
    for one in sorted(tries, key=lambda one: one["role"] != "api"):
        pid = f", pid {one['root_pid']}" if one["root_pid"] else ""
        owner = f"{one['workload'] or 'this node'}{pid}"
        groups.setdefault((one["namespace"], owner), []).append(one)
    for (name, owner), found in sorted(groups.items()):
        yield name, owner, found


def _addresses(texts: Collection[str]) -> tuple[Address, ...]:
    from ipaddress import ip_address

    try:
        return tuple(ip_address(text) for text in texts)
    except ValueError as error:
        raise click.BadParameter(f"--peer: {error}") from error


def _proof(status: StatusJson, peers: tuple[Address, ...], patience: float) -> ProveJson:
    from vllmwall import __version__
    from vllmwall.inspect.prove import report

    files, question, problems = _question(status, peers, patience)
    hashes = [{"file": str(file), "sha256": _sha256(file)} for file in files]
    begun = time.time()
    found = report.as_json(_prove(question))
    return cast(
        "ProveJson",
        {
            "version": 1,
            "time": begun,
            "seconds": time.time() - begun,
            "host": status["host"],
            "kernel": platform.release(),
            "vllmwall": __version__,
            "operator": os.environ.get("SUDO_USER") or _user(),
            "mode": status["mode"],
            "config": hashes,
            **found,
            "problems": [*problems, *cast("list[str]", found["problems"])],
        },
    )


def _prove(question: Question) -> list[Finding]:
    from vllmwall.enforce.backend import EnforceError
    from vllmwall.inspect.prove import ProveError
    from vllmwall.inspect.prove import prove as proved

    try:
        return proved(question)
    except PermissionError as error:
        fail(f"{error}: prove needs every right of root", Exit.DENIED)
    except (OSError, EnforceError, ProveError) as error:
        fail(f"nothing is proved: {error}")


def _question(
    status: StatusJson, peers: tuple[Address, ...], patience: float
) -> tuple[list[Path], Question, list[str]]:
    from ipaddress import ip_network

    from vllmwall.inspect.prove import Question
    from vllmwall.model import PEERS

    files = [Path(file) for file in status["config"]["files"]]
    policy, problems = _policy(files)
    networks: Mapping[str, Collection[Network]] = {
        **policy.groups,
        PEERS: [ip_network(text) for text in status["peers"]["networks"]],
    }
    problems += [
        f"{peer} is no peer: nothing but the API is expected to open for it"
        for peer in peers
        if not any(peer in network for network in networks[PEERS])
    ]
    loaded = status["config"]["loaded"]
    problems += [
        f"{file} was changed after it was loaded: `vllmwall reload` has not happened"
        for file in files
        if file.exists() and file.stat().st_mtime > loaded
    ]
    return files, Question(status, networks, policy.failsafe, peers, patience), problems


def _policy(files: Collection[Path]) -> tuple[Policy, list[str]]:
    """Groups and failsafe ports. The daemon keeps the last good file, of which there is no copy."""
    from vllmwall.config import DROP_INS, ConfigError, load
    from vllmwall.config.models import Config

    first = next(iter(files), Path(os.devnull))
    if first.parent.name == DROP_INS:
        first = first.parent.parent / "vllmwall.toml"
    try:
        return load(first).policy(), []
    except ConfigError:
        problem = "the configuration on the disk cannot be used: groups are not known"
        return Config().policy(), [problem]


def _sha256(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """A signal ends us like an error does, so that everything made is taken away. Only once."""
    stopping = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, _: FrameType | None) -> NoReturn:
        for each in stopping:
            signal.signal(each, signal.SIG_IGN)
        click.echo("vllmwall: stopped; taking away what was made", err=True)
        sys.exit(128 + number)

    before = {each: signal.signal(each, stop) for each in stopping}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
