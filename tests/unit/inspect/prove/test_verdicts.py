"""How a try is judged by its answer, the wall's memory and what else came through."""

from __future__ import annotations

import pytest

from tests.unit.inspect.prove.prove_nodes import PEER, STRANGER, attempt
from vllmwall.inspect.prove.plan import Expected, Probe, Way
from vllmwall.inspect.prove.verdicts import (
    ProbeOutcome,
    ProbeResult,
    Reply,
    Witness,
    judge,
    newly_counted,
)
from vllmwall.model import Mode, Proto

GOOD, BAD, UNPROVEN = ProbeOutcome.AS_EXPECTED, ProbeOutcome.DIFFERENT, ProbeOutcome.UNPROVEN
OPEN, CLOSED, OURS = Expected.OPEN, Expected.CLOSED, Expected.NOT_OURS


def judged(
    one: Probe,
    seen: Reply,
    *,
    counted: bool = False,
    way_is_open: bool = True,
    mode: Mode | None = Mode.ENFORCE,
    gone: bool = False,
) -> ProbeResult:
    """One try beside a control from the same source, which was answered or not."""
    control = attempt(source=one.source, port=1)
    answers = {one: seen, control: Reply.REFUSED if way_is_open else Reply.SILENT}
    key = one.source.address, one.target.proto, one.target.port
    return judge(one, Witness(answers, [key] if counted else [], [one] if gone else [], mode))


@pytest.mark.parametrize(
    ("expected", "seen", "counted", "outcome", "by"),
    [
        (OPEN, Reply.OPEN, False, GOOD, ""),
        (CLOSED, Reply.OPEN, False, BAD, ""),
        (OURS, Reply.OPEN, False, GOOD, ""),
        (OPEN, Reply.SILENT, True, BAD, "by vllmwall"),
        (CLOSED, Reply.SILENT, True, GOOD, "by vllmwall"),
        (OURS, Reply.SILENT, True, BAD, "by vllmwall"),
        (OPEN, Reply.SILENT, False, BAD, "no answer, not by vllmwall: another firewall?"),
        (CLOSED, Reply.SILENT, False, GOOD, "by an unknown program"),
        (OURS, Reply.SILENT, False, GOOD, "no answer, not by vllmwall: another firewall?"),
        (OPEN, Reply.REFUSED, False, BAD, "refused, not by vllmwall: another firewall?"),
        (CLOSED, Reply.REFUSED, False, GOOD, "refused, closed by an unknown program"),
    ],
)
def test_a_tcp_try(
    expected: Expected, seen: Reply, counted: bool, outcome: ProbeOutcome, by: str
) -> None:
    """The answer says open or closed, the wall's memory says by whom."""
    found = judged(attempt(expected), seen, counted=counted)
    assert (outcome, by) == (found.outcome, found.by)


@pytest.mark.parametrize(
    ("expected", "counted", "way_is_open", "outcome"),
    [
        (CLOSED, True, True, GOOD),
        (CLOSED, False, True, BAD),
        (CLOSED, False, False, UNPROVEN),
        (OPEN, False, True, GOOD),
        (OPEN, True, True, BAD),
    ],
)
def test_a_datagram_that_the_wall_did_not_refuse_came_through(
    expected: Expected, counted: bool, way_is_open: bool, outcome: ProbeOutcome
) -> None:
    """Nothing ever answers it."""
    one = attempt(expected, Way.DATAGRAM)
    found = judged(one, Reply.SILENT, counted=counted, way_is_open=way_is_open)
    assert outcome == found.outcome


def test_silence_is_a_proof_only_where_something_came_through() -> None:
    """From that source to that address."""
    one = attempt()
    assert UNPROVEN == judged(one, Reply.SILENT, way_is_open=False).outcome
    elsewhere = attempt(source=PEER, port=1)
    answers = {one: Reply.SILENT, elsewhere: Reply.OPEN}
    assert UNPROVEN == judge(one, Witness(answers, [], [], Mode.ENFORCE)).outcome
    other = attempt(port=2)
    counted = [(STRANGER.address, Proto.TCP, 2)]
    answers = {one: Reply.SILENT, other: Reply.SILENT}
    assert GOOD == judge(one, Witness(answers, counted, [], Mode.ENFORCE)).outcome


def test_a_wall_in_audit_mode_counts_and_closes_nothing() -> None:
    """What it counted came through, unless somebody else closed it."""
    syn, datagram = attempt(), attempt(way=Way.DATAGRAM)
    assert BAD == judged(syn, Reply.OPEN, counted=True, mode=Mode.AUDIT).outcome
    assert BAD == judged(datagram, Reply.SILENT, counted=True, mode=Mode.AUDIT).outcome
    closed = judged(syn, Reply.SILENT, counted=True, mode=Mode.AUDIT)
    assert (GOOD, "no answer, not by vllmwall") == (closed.outcome, closed.by)
    api = attempt(OPEN)
    assert BAD == judged(api, Reply.SILENT, counted=True, mode=Mode.AUDIT).outcome


def test_a_listener_that_went_is_neither_right_nor_wrong() -> None:
    for expected in Expected:
        assert ProbeOutcome.GONE == judged(attempt(expected), Reply.SILENT, gone=True).outcome


def test_the_memory_of_earlier_runs_is_no_witness() -> None:
    """An entry that expired and came back may show less than before."""
    one, two, three = ((STRANGER.address, Proto.TCP, port) for port in (1, 2, 3))
    assert {two, three} == newly_counted({one: 5, two: 5}, {one: 5, two: 3, three: 1})
