"""`vllmwall setup`: the first minutes after the installation, for people and for scripts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from vllmwall.api.changes import ChangeRequest
from vllmwall.api.commands import ADD_PEERS, LEARN, RELOAD, STATUS
from vllmwall.api.errors import NoArguments
from vllmwall.api.peers import AddRequest
from vllmwall.api.units import count
from vllmwall.cidr import Network
from vllmwall.cli.ask import ask
from vllmwall.cli.command_line import Command, common
from vllmwall.cli.drawing import Console
from vllmwall.cli.failures import fail
from vllmwall.cli.prove import prove
from vllmwall.cli.terminal import console, print_answer

if TYPE_CHECKING:
    from vllmwall.api.learn import LearnFacts
    from vllmwall.api.status_answer import ListenerStatus, Status

FILE_NAME = "92-setup.toml"
_AUDIT = '# Written by `vllmwall setup`; `vllmwall setup --enforce` removes it.\nmode = "audit"\n'
_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class SetupAnswer:
    """The node as setup found or left it.

    ``open`` are the listeners that everyone may connect to, ``adopted`` the hosts that were
    connected before the first wall, ``closed`` the number of listeners of workloads that are not
    open. ``proposed`` are networks of hosts that use internal ports, ``peers`` the trusted ones.
    """

    version: int = 1
    workloads: tuple[str, ...]
    open: tuple[str, ...]
    adopted: tuple[str, ...]
    closed: int
    proposed: tuple[str, ...]
    peers: tuple[Network, ...]
    mode: Literal["enforce", "audit", "down"]
    problems: tuple[str, ...]
    next: str


@click.command(cls=Command)
@click.option("--yes", is_flag=True, help="Ask nothing: trust the proposed peers, keep the mode.")
@click.option(
    "--peer", "peers", multiple=True, metavar="CIDR", help="Trust this network; repeatable."
)
@click.option("--audit/--enforce", "audit", default=None, help="Only count packets, or drop them.")
@click.option("--look", is_flag=True, help="Show what was found. Change nothing.")
@click.pass_context
def setup(
    context: click.Context, yes: bool, peers: tuple[str, ...], audit: bool | None, look: bool
) -> None:
    """Show what was found, and set up peers and mode.

    Asks for the peers, with those that use internal ports now as the proposal, and for the mode.
    Peers are saved in conf.d. At the end real packets prove the wall. With --yes or --json
    it asks nothing; with --json it sends no packets.
    """
    is_quiet = yes or common().as_json
    before = _found(exact=is_quiet)
    if look:
        print_answer(before, _draw)
        return
    if not is_quiet:
        _draw(console(), before)
    chosen = peers or (before.proposed if is_quiet else _asked_peers(before))
    if chosen:
        ask(ADD_PEERS, AddRequest(chosen, save=True))
    wanted = _asked_mode(before) if audit is None and not is_quiet else audit
    if wanted is not None:
        _set_mode("audit" if wanted else "enforce")
    print_answer(_found(exact=is_quiet), _draw)
    if not common().as_json and (yes or click.confirm("Prove it with real packets?", default=True)):
        context.invoke(prove)


def _found(*, exact: bool) -> SetupAnswer:
    """``exact``: propose only addresses that were seen, where nobody looks at the proposal."""
    status, facts = ask(STATUS, NoArguments()), ask(LEARN, NoArguments())
    listeners = [one for workload in status.workloads for one in workload.listeners]
    reached = [one for one in listeners if one.rule != "none"]
    public = [one for one in reached if "public" in one.audience]
    hosts = {str(host.address) for one in status.adopted for host in one.hosts}
    return SetupAnswer(
        workloads=tuple(f"{one.name} (pid {one.root_pid})" for one in status.workloads),
        open=tuple(dict.fromkeys(map(_place, public))),
        adopted=tuple(sorted(hosts)),
        closed=len(reached) - len(public),
        proposed=_proposed(facts, exact=exact),
        peers=status.peers.networks,
        mode=status.mode,
        problems=status.problems,
        next=_next(status),
    )


def _place(one: ListenerStatus) -> str:
    return f"{one.role} {one.proto} {one.addr}:{one.port}"


def _proposed(facts: LearnFacts, *, exact: bool) -> tuple[str, ...]:
    from vllmwall.inspect.learn.proposal import Watching

    watching = Watching()
    watching.take(facts)
    proposal = watching.answer((), "", "", 0.0, exact=exact)
    return tuple(one.network for one in proposal.networks if not one.public)


def _next(status: Status) -> str:
    if status.mode == "down":
        return "vllmwall up"
    if not status.peers.networks:
        return "vllmwall setup"
    return "vllmwall setup --enforce" if status.mode == "audit" else "vllmwall status"


def _asked_peers(found: SetupAnswer) -> tuple[str, ...]:
    default = " ".join(found.proposed)
    answer: str = click.prompt(
        "Networks of your other nodes (blanks between them, Enter for none)"
        if not default
        else "Networks of your other nodes (blanks between them, - for none)",
        default=default,
        show_default=bool(default),
    )
    return tuple(one for one in answer.split() if one != "-")


def _asked_mode(found: SetupAnswer) -> bool | None:
    """Whether only to count; None: the walls are down, so that is another question."""
    if found.mode == "down":
        return None
    return not click.confirm("Drop packets of untrusted hosts? (no: only count)", default=True)


def _set_mode(wanted: Literal["enforce", "audit"]) -> None:
    """Write or remove the drop-in with the mode, and reload."""
    from vllmwall.linux.files import save_text

    place = Path(ask(LEARN, NoArguments()).conf_d) / FILE_NAME
    try:
        if wanted == "audit":
            save_text(place, _AUDIT, 0o644)
        else:
            place.unlink(missing_ok=True)
    except OSError as error:
        fail(f"{place} cannot be written: {error.strerror or error}", "failed", "Run it as root.")
    status = ask(RELOAD, ChangeRequest(ssh=os.environ.get("SSH_CONNECTION", "")))
    if status.mode not in (wanted, "down"):
        files = ", ".join(status.config.files)
        fail(f"the mode is still {status.mode}", "failed", f"Remove the key mode from: {files}")


def _draw(out: Console, found: SetupAnswer) -> None:
    for head, text in _lines(found):
        out.print(f"{head:<14}{text}")


def _lines(found: SetupAnswer) -> Iterator[tuple[str, str]]:
    yield "workloads", _some(found.workloads) or "none"
    yield "open to all", _some(found.open) or "nothing"
    adopted = _some(found.adopted)
    yield "adopted", f"{adopted}, until their jobs end" if adopted else "no host"
    peers = f"peers: {_some(tuple(map(str, found.peers))) or 'none'}"
    verb = {"enforce": "closed", "audit": "counted", "down": "unguarded"}[found.mode]
    yield verb, f"{count(found.closed, 'other listener')}; {peers}"
    for problem in found.problems[:_SHOWN]:
        yield "!", problem
    yield "next", found.next


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
