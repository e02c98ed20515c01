"""The ring of events: numbers without holes, and every gap is told."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from vllmwall.engine.event_log import KINDS, OTHER, Happenings
from vllmwall.engine.histograms import BOUNDS, Histogram

PACKAGE = Path(__file__).parents[3] / "vllmwall"


def filled(count: int, kept: int = 10) -> Happenings:
    ring = Happenings(kept)
    for _ in range(count):
        ring.note({"event": "started", "level": "info"})
    return ring


@given(st.integers(0, 40), st.integers(0, 50), st.integers(1, 12))
def test_who_asks_again_and_again_gets_each_event_once_or_hears_how_many_are_lost(
    count: int, after: int, most: int
) -> None:
    """Nothing twice, nothing silently missing."""
    ring = filled(count)
    got: list[int] = []
    at, lost = min(after, count), 0
    while True:
        found = ring.since(at, ring.epoch, most)
        lost += found.lost
        got += [one.number for one in found.events]
        if not found.events:
            break
        at = found.events[-1].number
    assert got == sorted(set(got))
    assert len(got) + lost == count - min(after, count)
    assert found.newest == count


def test_another_epoch_starts_from_the_beginning() -> None:
    """The daemon was started anew: its numbers are others."""
    ring = filled(3)
    assert [1, 2, 3] == [one.number for one in ring.since(900, "another", 10).events]
    assert [] == list(ring.since(900, ring.epoch, 10).events)


def test_the_newest_come_when_no_number_is_known() -> None:
    """And none when none are asked for."""
    assert [4, 5] == [one.number for one in filled(5).last(2).events]
    assert () == filled(5).last(0).events


def test_a_record_becomes_an_event_with_its_fields() -> None:
    """The kind by its text; empty fields and stack traces stay out; nobody makes it long."""
    ring = Happenings()
    ring.note(
        {
            "event": "another program touched our table",
            "level": "warning",
            "namespace": "host",
            "pid": 7,
            "what": "x" * 5000,
            "empty": "",
            "exc_info": True,
        }
    )
    ring.note({"event": "something new"})
    first, second = ring.last(9).events
    assert ("touched", "warning", "host") == (first.kind, first.level, first.namespace)
    assert first.detail.startswith("pid=7, what=xxx")
    assert len(first.detail) <= 400
    assert "exc_info" not in first.detail
    assert (OTHER, "something new") == (second.kind, second.detail)
    assert {"touched": 1, OTHER: 1} == ring.counts


def test_every_kind_belongs_to_a_text_that_is_logged() -> None:
    """A message that is reworded must not become `other`, and an alert silent."""
    source = "".join(
        re.sub(r'"\s*\n\s*"', "", file.read_text())
        for file in PACKAGE.rglob("*.py")
        if file.name != "happenings.py"
    )
    assert [] == [text for text in KINDS if f'"{text}"' not in source]


@given(st.lists(st.floats(-1, 20)))
def test_a_histogram_counts_each_once_where_it_belongs(seconds: list[float]) -> None:
    """As Prometheus wants it: cumulative, the last bound takes all."""
    histogram = Histogram()
    for one in seconds:
        histogram.observe(one)
    found = dict(histogram.cumulative())
    assert len(seconds) == histogram.count == found["+Inf"]
    for bound in BOUNDS:
        assert sum(max(0, one) <= bound for one in seconds) == found[str(bound)]
