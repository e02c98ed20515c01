"""The two tables that the demo prints. Alike rows become one, so that both fit a screen."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from itertools import groupby

from rich.table import Table

from tests.demo.seen import NOBODY, Seen

_FEW = 3  # more alike rows than this become one


def before_table(seen: Iterable[Seen]) -> Table:
    """Without a wall: listener, who opened it, what each side got."""
    table = _table(
        "before: no wall", "listener", "opened by", "a trusted peer got", "a stranger got"
    )
    for where, one in _grouped(seen, lambda one: one.listening.program):
        table.add_row(where, one.listening.program, _calm(one.peer), _bad_when_open(one))
    return table


def after_table(seen: Iterable[Seen]) -> Table:
    """Behind the wall: listener, role, who may connect, what each side got."""
    headings = ("listener", "role", "who may connect", "a trusted peer got", "a stranger got")
    table = _table("after: vllmwall runs", *headings)
    for where, one in _grouped(seen, lambda one: one.role):
        colour = "red" if one.stranger != "nothing" and one.audience == "peers" else "green"
        stranger = f"[{colour}]{one.stranger}[/]"
        table.add_row(where, one.role, one.audience, _calm(one.peer), stranger)
    return table


def _bad_when_open(one: Seen) -> str:
    return _calm(one.stranger) if _is_meant_for_all(one) else f"[red]{one.stranger}[/]"


def _is_meant_for_all(one: Seen) -> bool:
    return one.stranger == "a completion" or one.audience == "all"


def _calm(got: str) -> str:
    return f"[red]{got}[/]" if got == "nothing" else f"[green]{got}[/]"


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False)
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
    return sorted(rows, key=lambda row: (row[1].role == NOBODY, row[1].listening.port))
