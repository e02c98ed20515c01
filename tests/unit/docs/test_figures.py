"""Figures in the documentation come from docs/reference/bench.json."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.bench.figures import filled
from tests.support.documents import ROOT, pages

ROWS = json.loads((ROOT / "docs/reference/bench.json").read_text())
_FIGURE = re.compile(r"\d[\d.,]* ?(?:ms|µs|MB|Gbit/s|milliseconds?|microseconds?)\b|half a milli")
_WRITTEN = re.compile(r"<!-- figure .*?<!-- /figure -->", re.DOTALL)
_CODE = re.compile(r"```.*?```", re.DOTALL)
_HAND_WRITTEN = [page for page in pages() if "reference" not in page.parts]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_figures_are_those_of_bench_json(page: Path) -> None:
    """Stale? `make docs` writes them."""
    text = page.read_text()
    assert filled(text, ROWS) == text


@pytest.mark.parametrize("page", _HAND_WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_figure_is_written_by_hand(page: Path) -> None:
    """A measured figure in running text is marked with the row that it comes from."""
    text = _CODE.sub("", _WRITTEN.sub("", page.read_text()))
    assert [] == _FIGURE.findall(text)


def test_an_unknown_figure_is_an_error() -> None:
    """A row that was renamed in the benchmark is found here, not by a reader."""
    with pytest.raises(KeyError):
        filled("<!-- figure nothing --><!-- /figure -->", ROWS)
