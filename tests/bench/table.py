"""The table that the benchmark prints."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.table import Table

from tests.bench.rows import Row, number

_MET = {True: "[green]met[/]", False: "[bold red]MISSED[/]", None: ""}


def as_table(rows: Iterable[Row], title: str) -> Table:
    """All rows, one section per part."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("what", no_wrap=True)
    for heading in ("value", "unit", "beside", "ratio", "goal"):
        table.add_column(heading, no_wrap=True, justify="left" if heading == "unit" else "right")
    table.add_column("")
    table.add_column("note", style="dim")
    part = ""
    for row in rows:
        if row.part != part:
            part = row.part
            table.add_section()
            table.add_row(f"[bold]{part}[/]")
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> tuple[str, ...]:
    beside = "" if row.baseline is None else f"{row.beside} {number(row.baseline)}"
    return (
        f"  {row.name}",
        "-" if row.value is None else number(row.value),
        row.unit,
        beside,
        "" if row.ratio is None else number(row.ratio),
        "" if row.goal is None else str(row.goal),
        _MET[row.met],
        row.note,
    )
