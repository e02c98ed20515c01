"""`vllmwall peers`: who may reach the internal ports."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, cast

import click

from vllmwall.cli.terminal import ask, console, print_json

if TYPE_CHECKING:
    from vllmwall.api.shapes import PeersJson, PeerSourceJson

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Duration(click.ParamType):  # type: ignore[type-arg]
    """``90s``, ``30m``, ``1h``, ``2d``, ``1h30m``: as seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds. Fails with what is allowed."""
        text = str(value)
        parts = re.findall(r"(\d+)([smhdw])", text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            self.fail(f"{text!r} is no duration; write 90s, 30m, 1h, 2d or 1h30m", param, ctx)
        return float(sum(int(number) * _UNITS[unit] for number, unit in parts))


@click.group()
def peers() -> None:
    """List, add and remove trusted peers."""


@peers.command("list")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def list_(as_json: bool) -> None:
    """Show the peers and where each of them comes from."""
    _show(ask("peers.list"), as_json)


@peers.command()
@click.argument("cidrs", nargs=-1, required=True)
@click.option("--for", "seconds", type=Duration(), help="Trust them only so long, e.g. 1h.")
@click.option("--save", is_flag=True, help="Write them into conf.d, so that they outlive a reboot.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def add(cidrs: tuple[str, ...], seconds: float | None, save: bool, as_json: bool) -> None:
    """Trust CIDRS at once."""
    if seconds is not None and save:
        raise click.UsageError("--for and --save exclude each other: a file does not expire")
    arguments = {"networks": list(cidrs), "seconds": seconds, "save": save}
    _show(ask("peers.add", arguments), as_json)


@peers.command()
@click.argument("cidrs", nargs=-1, required=True)
@click.option("--save", is_flag=True, help="Take them out of what `add --save` wrote, too.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def remove(cidrs: tuple[str, ...], save: bool, as_json: bool) -> None:
    """Trust CIDRS no longer."""
    _show(ask("peers.remove", {"networks": list(cidrs), "save": save}), as_json)


def _show(answer: dict[str, object], as_json: bool) -> None:
    found = cast("PeersJson", answer["peers"])
    if as_json:
        print_json(found)
        return
    from rich.table import Table

    out = console()
    if not found["networks"]:
        out.print("No peers: internal ports are closed to every other host.", style="yellow")
        out.print("Add some with: vllmwall peers add 10.0.0.0/24 --save")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("PEERS", "FROM", "UNTIL"):
        table.add_column(title, overflow="fold")
    for source in found["sources"]:
        table.add_row("\n".join(source["networks"]) or "-", _origin(source), _until(source))
    if table.row_count:
        out.print(table)
    for source in found["sources"]:
        if source["error"]:
            out.print(f"! {source['name']}: {source['error']}", style="red")


def _origin(source: PeerSourceJson) -> str:
    kind, name = source["kind"], source["name"]
    return name if kind in ("static", "file") or kind == name else f"{kind} {name}"


def _until(source: PeerSourceJson) -> str:
    expires = source["expires"]
    if expires is None:
        return ""
    left = max(0, int(expires - time.time()))
    return f"{time.strftime('%H:%M:%S', time.localtime(expires))} ({left // 60}m {left % 60}s left)"
