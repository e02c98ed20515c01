"""Figures of bench.json in pages: ``python -m tests.bench.figures BENCH_JSON PAGE...``.

Rewrites, in each page, the table between ``<!-- figures -->`` and ``<!-- /figures -->`` and every
single figure ``<!-- figure NAME -->…<!-- /figure -->``. `make docs` runs it with the committed
docs/reference/bench.json; a test compares.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.bench.rows import number

_MET = {True: "met", False: "**missed**", None: ""}
_TABLE = re.compile(r"(<!-- figures -->\n).*?(<!-- /figures -->)", re.DOTALL)
_FIGURE = re.compile(r"(<!-- figure (.+?) -->).*?(<!-- /figure -->)", re.DOTALL)

Rows = Iterable[Mapping[str, object]]


def filled(page: str, rows: Rows) -> str:
    """The page with its table and figures written from ``rows``.

    Raises KeyError for a figure that ``rows`` do not have.
    """
    rows = list(rows)
    by_name = {str(row["name"]): row for row in rows}

    def figure(found: re.Match[str]) -> str:
        row = by_name[found.group(2)]
        return f"{found.group(1)}{_value(row)}{found.group(3)}"

    table = "\n".join(as_markdown(rows)) + "\n"
    page = _TABLE.sub(lambda found: found.group(1) + table + found.group(2), page)
    return _FIGURE.sub(figure, page)


def as_markdown(rows: Rows) -> Iterator[str]:
    """The lines of the table."""
    yield "| what | value | compared with | ratio | goal | |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        beside = f"{row['beside']}: {_figure(row['baseline'])}" if row["beside"] else ""
        ratio = "" if row["ratio"] is None else _figure(row["ratio"])
        cells = (row["name"], _value(row), beside, ratio, row["goal"] or "")
        yield f"| {' | '.join(map(str, cells))} | {_MET[row['met']]} |"  # type: ignore[index]


def _value(row: Mapping[str, object]) -> str:
    return f"{_figure(row['value'])} {row['unit']}"


def _figure(value: object) -> str:
    return "not measured" if value is None else number(float(str(value)))


def main(bench: Path, pages: Iterable[Path]) -> None:
    """Rewrite the pages in place."""
    rows = json.loads(bench.read_text())
    for page in pages:
        page.write_text(filled(page.read_text(), rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), map(Path, sys.argv[2:]))
