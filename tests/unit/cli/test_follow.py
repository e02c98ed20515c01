"""What commands do that ask again and again."""

from __future__ import annotations

import time
from itertools import islice

from vllmwall.cli.follow import ticks


def test_an_answer_that_took_longer_than_a_tick_ends_nothing() -> None:
    """A node that is busy is the one that is watched."""
    before = time.time()
    for now in islice(ticks(0.001), 3):
        assert now >= before
        time.sleep(0.01)
