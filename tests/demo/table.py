"""The two tables that the demo prints. Alike rows become one, so that both fit a screen."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from itertools import groupby

from rich import box
from rich.table import Table

from tests.demo.seen import NOTHING, Seen

_FEW = 3  # more alike rows than this become one


def before_table(seen: Iterable[Seen]) -> Table:
    """Without a wall: listener, who opened it, what each side got."""
    table = _table("before: no wall", "listener", "opened by", "peer got", "stranger got")
    for where, one in _grouped(seen, lambda one: one.listening.program):
        table.add_row(where, one.listening.program, _peer_got(one), _stranger_got(one))
    return table


def after_table(seen: Iterable[Seen]) -> Table:
    """Behind the wall: listener, role, who may connect, what each side got."""
    headings = ("listener", "role", "who may connect", "peer got", "stranger got")
    table = _table("after: vllmwall runs", *headings)
    for where, one in _grouped(seen, lambda one: one.role):
        table.add_row(where, one.role, one.audience, _peer_got(one), _stranger_got(one))
    return table


def _peer_got(one: Seen) -> str:
    return _coloured(one.peer, good=one.peer != NOTHING)


def _stranger_got(one: Seen) -> str:
    return _coloured(one.stranger, good=one.is_public == (one.stranger != NOTHING))


def _coloured(text: str, *, good: bool) -> str:
    return f"[{'green' if good else 'red'}]{text}[/]"


def _table(title: str, *headings: str) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table


def _grouped(seen: Iterable[Seen], by: Callable[[Seen], str]) -> list[tuple[str, Seen]]:
    def key(one: Seen) -> tuple[Hashable, ...]:
        return one.listening.address, by(one), one.peer, one.stranger

    rows: list[tuple[str, Seen]] = []
    for _, alike in groupby(sorted(seen, key=key), key):
        group = list(alike)
        if len(group) > _FEW:
            rows.append((f"{group[0].listening.address}, {len(group)} ports", group[0]))
        else:
            rows += [(one.where, one) for one in group]
    return sorted(rows, key=lambda row: (not row[1].is_workload, row[1].listening.port))
