"""The ledger of refusals: sums over what the kernel forgets."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from vllmwall.enforce.backend import Counters, Refusal
from vllmwall.engine import refusals
from vllmwall.engine.refusals import KEPT_SECONDS, Ledger, Purpose, Record
from vllmwall.model import Mode, Proto

SPACE = (1, Mode.ENFORCE)
SOURCE = ip_address("10.0.0.9")
NCCL = Purpose("nccl", "tiny", ("peers",))


def refusal(packets: int, seconds_ago: float = 0.0, port: int = 29500) -> Refusal:
    """A source that the kernel remembers."""
    return Refusal(SOURCE, Proto.TCP, port, packets, 60 * packets, seconds_ago)


def counters(*refusals: Refusal) -> Counters:
    """All that the kernel counts."""
    packets = sum(one.packets for one in refusals)
    return Counters(packets, 60 * packets, refusals)


def only(ledger: Ledger) -> Record:
    (record,) = ledger.records.values()
    return record


@given(
    st.lists(
        st.tuples(st.sampled_from(["more", "rebuilt", "forgotten"]), st.integers(0, 50)),
        max_size=30,
    )
)
def test_no_packet_is_counted_twice_and_none_that_was_seen_is_lost(
    story: list[tuple[str, int]],
) -> None:
    """Whatever the kernel forgets between two looks that saw it."""
    ledger, sent, held, rebuilt = Ledger(0.0), 0, 0, 0
    for now, (event, packets) in enumerate(story):
        if event in ("rebuilt", "forgotten"):
            held = 0
            rebuilt = 0 if event == "rebuilt" else rebuilt
            total = Counters(rebuilt, 60 * rebuilt, ())
            ledger.take(SPACE, total, float(now), lambda _: NCCL)
        held, sent, rebuilt = held + packets, sent + packets, rebuilt + packets
        seen = (refusal(held),) if held else ()
        ledger.take(SPACE, Counters(rebuilt, 60 * rebuilt, seen), float(now), lambda _: NCCL)
    assert sent == sum(one.total.packets for one in ledger.records.values())
    assert 60 * sent == sum(one.total.bytes for one in ledger.records.values())
    assert sent == ledger.totals.get(SPACE, refusals.Total()).packets


def test_a_table_that_was_rebuilt_between_two_looks_makes_a_lower_bound() -> None:
    """Less than before can only mean a new count."""
    ledger = Ledger(0.0)
    ledger.take(SPACE, counters(refusal(10)), 1.0, lambda _: NCCL)
    ledger.take(SPACE, counters(refusal(3)), 2.0, lambda _: NCCL)
    assert 13 == only(ledger).total.packets


def test_since_and_last_are_packets_times() -> None:
    """Not those of our looks."""
    ledger = Ledger(100.0)
    ledger.take(SPACE, counters(refusal(1, seconds_ago=30.0)), 100.0, lambda _: NCCL)
    ledger.take(SPACE, counters(refusal(2, seconds_ago=5.0)), 200.0, lambda _: NCCL)
    assert (70.0, 195.0) == (only(ledger).since, only(ledger).last)


def test_a_closed_port_keeps_the_purpose_that_it_had() -> None:
    """The listener is gone, and what it was for is what one wants to know."""
    ledger = Ledger(0.0)
    ledger.take(SPACE, counters(refusal(1)), 1.0, lambda _: NCCL)
    ledger.take(SPACE, counters(refusal(2)), 2.0, lambda _: Purpose())
    assert NCCL == only(ledger).purpose


def test_audit_and_enforce_are_counted_apart() -> None:
    """Let in, or kept out: nobody may take the one for the other."""
    ledger = Ledger(0.0)
    for mode in Mode:
        ledger.take((1, mode), counters(refusal(1)), 1.0, lambda _: NCCL)
    assert {Mode.AUDIT, Mode.ENFORCE} == {knock.mode for knock in ledger.records}


def test_what_is_old_or_elsewhere_is_let_go() -> None:
    """A day after the last packet; at once when the namespace is gone."""
    ledger = Ledger(0.0)
    ledger.take(SPACE, counters(refusal(1)), 0.0, lambda _: NCCL)
    ledger.let_go({1}, KEPT_SECONDS - 1)
    assert ledger.records
    ledger.let_go({1}, KEPT_SECONDS)
    assert not ledger.records
    ledger.take(SPACE, counters(refusal(1)), 0.0, lambda _: NCCL)
    ledger.let_go({2}, 1.0)
    assert not ledger.records
    assert not ledger.totals


def test_it_does_not_grow_without_end() -> None:
    """The newest stay: 8,192 of them."""
    ledger = Ledger(0.0)
    for port in range(1, refusals.MOST + 11):
        knock = refusals.Knock(*SPACE, SOURCE, Proto.TCP, port)
        ledger.records[knock] = Record(0.0, float(port), NCCL)
    ledger.let_go({1}, 1.0)
    assert refusals.MOST == len(ledger.records)
    assert 11 == min(knock.port for knock in ledger.records)
