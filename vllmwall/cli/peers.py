"""`vllmwall peers`: the trusted peers, which may connect to internal ports."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from vllmwall.api.commands import ACCEPT_LOSS, ADD_PEERS, LIST_PEERS, REMOVE_PEERS
from vllmwall.api.errors import NoArguments
from vllmwall.api.peers import AcceptLossRequest, AddRequest, PeersAnswer, RemoveRequest
from vllmwall.cli.ask import ask
from vllmwall.cli.command_line import Group
from vllmwall.cli.drawing import Column, Console, Table
from vllmwall.cli.parameters import Duration, cidrs_argument
from vllmwall.cli.terminal import print_answer

if TYPE_CHECKING:
    from vllmwall.networks.sources import HeldPeer, PeerSource


@click.group(cls=Group)
def peers() -> None:
    """List, add and remove trusted peers."""


@peers.command("list")
def list_() -> None:
    """List the trusted peers and where each comes from."""
    print_answer(ask(LIST_PEERS, NoArguments()), _draw)


@peers.command()
@cidrs_argument
@click.option("--for", "seconds", type=Duration(), help="Trust CIDRS only for this time, e.g. 1h.")
@click.option("--save", is_flag=True, help="Write CIDRS to conf.d, to keep them after a reboot.")
def add(cidrs: tuple[str, ...], seconds: float | None, save: bool) -> None:
    """Trust CIDRS from now on."""
    if seconds is not None and save:
        raise click.UsageError("--for and --save cannot be combined: a saved peer does not expire")
    print_answer(ask(ADD_PEERS, AddRequest(cidrs, seconds, save)), _draw)


@peers.command()
@cidrs_argument
@click.option("--save", is_flag=True, help="Also remove CIDRS from the file of `add --save`.")
def remove(cidrs: tuple[str, ...], save: bool) -> None:
    """Stop trusting CIDRS."""
    print_answer(ask(REMOVE_PEERS, RemoveRequest(cidrs, save)), _draw)


@peers.command("accept-loss")
@click.argument("sources", nargs=-1)
def accept_loss(sources: tuple[str, ...]) -> None:
    """Stop trusting peers that their file or DNS name no longer names.

    SOURCES are files and DNS names of the peers. Default: all.
    """
    print_answer(ask(ACCEPT_LOSS, AcceptLossRequest(sources)), _draw)


def _draw(out: Console, found: PeersAnswer) -> None:
    if not found.networks:
        out.print("No peers: internal ports are closed to every other host.", style="yellow")
        out.print("Add a network: vllmwall peers add 10.0.0.0/24 --save")
    rows = [
        ("\n".join(map(str, source.networks)) or "-", _origin(source), _until(source))
        for source in found.sources
        if source.networks or not source.held
    ]
    rows += [
        (str(one.network), f"{_origin(source)}, no longer named", _held_until(one))
        for source in found.sources
        for one in source.held
    ]
    if rows:
        out.print(Table([Column("PEERS"), Column("FROM"), Column("UNTIL")], rows))
    for source in found.sources:
        if source.error:
            out.print(f"! {source.name}: {source.error}", style="red")


def _origin(source: PeerSource) -> str:
    kind, name = source.kind, source.name
    return name if kind in ("static", "file") or kind == name else f"{kind} {name}"


def _held_until(one: HeldPeer) -> str:
    return "peers accept-loss" if one.until is None else _time_left(one.until)


def _until(source: PeerSource) -> str:
    return "" if source.expires is None else _time_left(source.expires)


def _time_left(end: float) -> str:
    left = max(0, int(end - time.time()))
    return f"{time.strftime('%H:%M:%S', time.localtime(end))} ({left // 60}m {left % 60}s left)"
