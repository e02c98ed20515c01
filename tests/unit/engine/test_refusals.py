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
    assert sent == ledger.roles.get((1, "nccl"), refusals.Total()).packets


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
    assert {Mode.AUDIT, Mode.ENFORCE} == {key.mode for key in ledger.records}


def test_what_is_old_or_elsewhere_is_forgotten() -> None:
    """A day after the last packet; at once when the namespace is gone."""
    ledger = Ledger(0.0)
    ledger.take(SPACE, counters(refusal(1)), 0.0, lambda _: NCCL)
    ledger.forget({1}, KEPT_SECONDS - 1)
    assert ledger.records
    ledger.forget({1}, KEPT_SECONDS)
    assert not ledger.records
    ledger.take(SPACE, counters(refusal(1)), 0.0, lambda _: NCCL)
    ledger.forget({2}, 1.0)
    assert not ledger.records
    assert not ledger.totals


def test_it_does_not_grow_without_end() -> None:
    """The newest stay: 8,192 of them."""
    ledger = Ledger(0.0)
    for port in range(1, refusals.MOST + 11):
        at = refusals.SourceAtPort(*SPACE, SOURCE, Proto.TCP, port)
        ledger.records[at] = Record(0.0, float(port), NCCL)
    ledger.forget({1}, 1.0)
    assert refusals.MOST == len(ledger.records)
    assert 11 == min(key.port for key in ledger.records)


def take(ledger: Ledger, packets: int, *sources: tuple[int, int]) -> None:
    """The kernel's counters: the total, and (port, packets) for each source."""
    roles = {8000: "api", 29500: "tcpstore"}
    seen = tuple(refusal(count, port=port) for port, count in sources)
    total = Counters(packets, 60 * packets, seen)
    ledger.take(SPACE, total, 0.0, lambda one: Purpose(roles.get(one.port, "")))


def by_role(ledger: Ledger) -> dict[str, tuple[int, int]]:
    return {role: (one.packets, one.bytes) for (_, role), one in ledger.roles.items()}


def test_drops_are_counted_by_role_and_their_sum_is_the_total() -> None:
    """What no source is remembered for is `other`."""
    ledger = Ledger(0.0)
    take(ledger, 10, (29500, 3), (8000, 2))
    assert {"tcpstore": (3, 180), "api": (2, 120), "other": (5, 300)} == by_role(ledger)


def test_drops_go_on_when_the_table_is_rebuilt_and_sources_are_forgotten() -> None:
    """A counter that goes down would look like a flood to Prometheus."""
    ledger = Ledger(0.0)
    take(ledger, 10, (29500, 10))
    take(ledger, 4, (29500, 4))  # rebuilt: from zero
    ledger.records.clear()
    take(ledger, 4)
    assert {"tcpstore": (14, 840), "other": (0, 0)} == by_role(ledger)


def test_a_source_that_was_read_after_the_total_lowers_nothing() -> None:
    """A packet came between the two reads."""
    ledger = Ledger(0.0)
    take(ledger, 10, (29500, 3))
    take(ledger, 11, (29500, 9))
    assert {"tcpstore": (9, 540), "other": (7, 420)} == by_role(ledger)


def test_a_source_that_was_forgotten_for_want_of_room_is_not_counted_again() -> None:
    """The kernel shows it at each look."""
    ledger = Ledger(0.0)
    for _ in range(3):
        take(ledger, 10, (29500, 10))
        ledger.records.clear()
    assert {"tcpstore": (10, 600), "other": (0, 0)} == by_role(ledger)


def test_the_counters_of_an_ended_namespace_are_dropped() -> None:
    """Containers come and go, and their numbers are given again."""
    ledger = Ledger(0.0)
    take(ledger, 10, (29500, 10))
    ledger.forget({2}, 0.0)
    assert {} == ledger.roles
