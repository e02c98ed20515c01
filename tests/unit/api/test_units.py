"""Numbers as people read them."""

from __future__ import annotations

from vllmwall.api.units import count, how_long, how_much


def test_amounts() -> None:
    """Short, and never a rounded nothing."""
    sizes = {0: "0 B", 999: "999 B", 1000: "1 kB", 20480: "20.5 kB", 10**14: "100000 GB"}
    assert sizes == {number: how_much(number) for number in sizes}
    times = {-1: "0 s", 59.9: "59 s", 60: "1 min", 7199: "1 h", 200000: "2 d"}
    assert times == {number: how_long(number) for number in times}
    assert ("1 packet", "0 packets") == (count(1, "packet"), count(0, "packet"))
