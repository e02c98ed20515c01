"""One figure of the benchmark: its ratio, whether it is good enough, how it is written."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.bench.figures import as_markdown
from tests.bench.rows import Goal, Row, number, percentile, to_json
from tests.bench.table import as_table

FIGURES = st.lists(st.floats(0, 1e6), min_size=1)


def test_a_percentile_is_one_of_the_figures() -> None:
    """No interpolation: what is printed was measured."""
    figures = [float(n) for n in range(100, 0, -1)]
    assert (50, 99, 100) == tuple(percentile(figures, p) for p in (50, 99, 100))
    assert 3.0 == percentile([3.0], 1)


def test_no_figures_have_no_percentile() -> None:
    """Nothing measured is an error, not zero."""
    with pytest.raises(ValueError, match="no figures"):
        percentile([], 50)


@given(FIGURES, st.floats(0, 100))
def test_enough_figures_do_not_exceed_a_percentile(figures: list[float], percent: float) -> None:
    """The named share of all figures is at most the percentile."""
    found = percentile(figures, percent)
    assert found in figures
    assert sum(one <= found for one in figures) >= len(figures) * percent / 100 - 1e-6


def test_a_ratio_is_the_value_in_units_of_the_baseline() -> None:
    """Half as much as the baseline is 0.5; paired runs know their ratio better."""
    assert 0.5 == Row("p", "n", 2.0, "ms", "ss", 4.0).ratio
    assert 0.7 == Row("p", "n", 2.0, "ms", "ss", 4.0, paired_ratio=0.7).ratio


@pytest.mark.parametrize("row", [Row("p", "n", 2.0, "ms"), Row("p", "n", 2.0, "ms", "ss", 0.0),
                                 Row("p", "n", None, "ms", "ss", 4.0)])  # fmt: skip
def test_without_a_baseline_there_is_no_ratio(row: Row) -> None:
    """Nor beside a baseline of nothing, nor for what was not measured."""
    assert row.ratio is None


@pytest.mark.parametrize(
    ("value", "goal", "met"),
    [
        (0.5, Goal("≤", 0.5), True),
        (0.51, Goal("≤", 0.5), False),
        (8.0, Goal("≥", 0.97, "ratio"), False),
        (9.8, Goal("≥", 0.97, "ratio"), True),
        (0.1, None, None),
    ],
)
def test_a_goal_is_about_the_value_or_the_ratio(
    value: float, goal: Goal | None, met: bool | None
) -> None:
    """A figure on the limit is good enough; a row without a goal is neither."""
    assert met is Row("p", "n", value, "1/s", "none", 10.0, goal=goal).met


def test_what_could_not_be_measured_has_missed_its_goal() -> None:
    """A failure of ours stands in the table as one."""
    assert Row("p", "n", None, "ms", goal=Goal("≤", 1)).met is False


def test_json_has_an_object_for_each_row() -> None:
    """Name, value, unit, baseline, ratio, and whether the goal was met."""
    row = Row("cost", "idle CPU", 0.2, "% of a core", "poller", 0.4, goal=Goal("≤", 0.1))
    (found,) = json.loads(to_json([row]))
    assert {
        "name": "cost: idle CPU",
        "value": 0.2,
        "unit": "% of a core",
        "baseline": 0.4,
        "ratio": 0.5,
        "beside": "poller",
        "goal": "≤ 0.1",
        "met": False,
        "note": "",
    } == found
    assert [] == json.loads(to_json([]))


@pytest.mark.parametrize(
    ("figure", "text"),
    [(0, "0"), (0.00042, "0.00042"), (0.00001, "0.00001"), (4.698, "4.7"), (27529.4, "27,529")],
)
def test_figures_have_three_digits(figure: float, text: str) -> None:
    """More would promise what a noisy machine cannot keep."""
    assert text == number(figure)


def test_the_table_shows_our_own_failures() -> None:
    """A goal that was missed and a part that did not run are in it, in words."""
    console = Console(width=160, file=io.StringIO(), record=True)
    missed = Row("reaction", "p50", 4.7, "ms", goal=Goal("≤", 0.5))
    absent = Row("exposure", "ufw", None, "", note="not run: ufw is not installed")
    console.print(as_table([missed, absent], "bench"))
    text = console.export_text()
    assert "MISSED" in text
    assert "ufw is not installed" in text


def test_figures_for_the_docs_are_those_of_the_json() -> None:
    """A goal that was missed is one in the docs too, and what was not measured is said."""
    rows = [
        Row("repair", "p99", 48.5, "ms", goal=Goal("≤", 20)),
        Row("cost", "RSS", 20.0, "MB", "poller", 10.0),
        Row("exposure", "ufw", None, ""),
    ]
    assert [
        "| repair: p99 | 48.5 ms |  |  | ≤ 20 | **missed** |",
        "| cost: RSS | 20 MB | poller: 10 | 2 |  |  |",
        "| exposure: ufw | not measured  |  |  |  |  |",
    ] == list(as_markdown(json.loads(to_json(rows))))[2:]
