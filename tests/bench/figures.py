"""Write bench.json as a Markdown table, for docs/reference/benchmarks.md.

python -m tests.bench.figures bench.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.bench.rows import number

_MET = {True: "met", False: "**missed**", None: ""}


def as_markdown(rows: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """The lines of the table."""
    yield "| what | value | beside | ratio | goal | |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        value = _figure(row["value"])
        beside = f"{row['beside']}: {_figure(row['baseline'])}" if row["beside"] else ""
        ratio = "" if row["ratio"] is None else _figure(row["ratio"])
        cells = (row["name"], f"{value} {row['unit']}", beside, ratio, row["goal"] or "")
        yield f"| {' | '.join(map(str, cells))} | {_MET[row['met']]} |"  # type: ignore[index]


def _figure(value: object) -> str:
    return "not measured" if value is None else number(float(str(value)))


if __name__ == "__main__":
    print("\n".join(as_markdown(json.loads(Path(sys.argv[1]).read_text()))))
