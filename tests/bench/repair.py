"""Repair time: from a flush of an unowned table to its repair.

Method: the time between two commits in one stream of notifications (watch.c): the flush, and the
transaction that restores the workload's port.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator

from tests.bench.commits import Commit, Watch
from tests.bench.rows import Goal, Row, percentile
from tests.bench.stage import Stage, next_port

PART = "repair"
_PATIENCE = 1.0
_APART = (0.02, 0.06)  # seconds between flushes
_GIVE_UP = 5  # flushes without repair: more would add no information
_FLUSH = ("nft", "flush", "ruleset")
_NOT_OWNED = {
    "VLLMWALL_OWNER": "off"
}  # vllmwall.enforce.nftables.ownership: as on a kernel without the flag


def measure(stage: Stage) -> Iterator[Row]:
    """p50, p99 and the maximum, of the flushes that were repaired within `_PATIENCE`."""
    took, missed = [], 0
    port = next_port()
    with (
        stage.daemon(environment=_NOT_OWNED) as daemon,
        Watch(stage.lab.node) as watch,
        stage.rank() as rank,
    ):
        rank.ask(f"open {port}")
        assert watch.until(lambda commit: port in commit.closed, _PATIENCE), "no wall to flush"
        daemon.settled()
        for number in range(stage.scale.flushes):
            stage.progress(f"{PART}: flush {number} of {stage.scale.flushes}")
            milliseconds = flush_once(stage, watch, port)
            if milliseconds is None:
                missed += 1
                if missed == _GIVE_UP:
                    break
                daemon.ask("reload")
                watch.until(lambda commit: port in commit.closed, _PATIENCE)
            else:
                took.append(milliseconds)
    yield from rows(took, missed)


def flush_once(stage: Stage, watch: Watch, port: int) -> float | None:
    """Milliseconds from the flush to the repair; None: not repaired in time."""
    time.sleep(random.uniform(*_APART))
    subprocess.run(stage.lab.node.command(_FLUSH), check=True)
    flush = watch.until(lambda commit: commit.name == "nft", _PATIENCE)
    assert flush is not None, "the flush was not notified"

    def repairs(commit: Commit) -> bool:
        return port in commit.closed

    repair = watch.until(repairs, _PATIENCE)
    return None if repair is None else (repair.at - flush.at) / 1e6


def rows(took: list[float], missed: int) -> Iterator[Row]:
    """The figures; there are none if a flush was not repaired."""
    note = f"{len(took)} flushes repaired"
    if missed:
        note += f", {missed} not within {_PATIENCE:g} s!"
    for name, percent, goal in (("p50", 50, None), ("p99", 99, Goal("≤", 20)), ("max", 100, None)):
        value = percentile(took, percent) if took and not missed else None
        yield Row(PART, f"flush to repair, {name}", value, "ms", goal=goal, note=note)
