"""The event log: numbers without holes, and every gap is reported."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.event_log import EventLog
from vllmwall.engine.histograms import BOUNDS, Histogram


def filled(count: int, kept: int = 10) -> EventLog:
    ring = EventLog(kept)
    for _ in range(count):
        ring.add(EventKey.DAEMON_STARTED, {})
    return ring


@given(st.integers(0, 40), st.integers(0, 50), st.integers(1, 12))
def test_each_event_is_read_once_or_counted_as_lost(count: int, after: int, most: int) -> None:
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
    """The daemon has restarted, and its numbers with it."""
    ring = filled(3)
    assert [1, 2, 3] == [one.number for one in ring.since(900, "another", 10).events]
    assert [] == list(ring.since(900, ring.epoch, 10).events)


def test_the_newest_come_when_no_number_is_known() -> None:
    """And none when none are asked for."""
    assert [4, 5] == [one.number for one in filled(5).last(2).events]
    assert () == filled(5).last(0).events


def test_an_event_keeps_the_fields_of_its_record() -> None:
    """Without the empty ones, and a long one is cut."""
    ring = EventLog()
    ring.add(
        EventKey.TABLE_MODIFIED,
        {"namespace": "host", "pid": 7, "names": ["a b", "c"], "empty": "", "what": "x" * 5000},
    )
    [event] = ring.last(9).events
    assert (EventKey.TABLE_MODIFIED, "host", "") == (event.key, event.namespace, event.workload)
    assert event.detail.startswith("pid=7, names=a b; c, what=xxx")
    assert 400 == len(event.detail)
    assert {EventKey.TABLE_MODIFIED: 1} == ring.counts


def test_keys_are_names_that_prometheus_and_the_journal_take() -> None:
    """A key is part of label values and of queries: nothing in it needs quoting."""
    for one in EventKey:
        assert re.fullmatch("[a-z]+(_[a-z]+)*", one.key)


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
