"""Reaction time: from `listen()`, or UDP's `bind()`, to the rule, without a guard.

Method: the workload reads the clock right before it makes the call, and prints it. The kernel
notifies of the daemon's transaction right after its rules took effect, and watch.c then reads the
same clock. So the figure is too large by some ten microseconds. The commit that counts is the one
that adds this port to a walled set. The workload shares its cgroup with others, so it has no guard.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping

from tests.bench.commits import Commit, Watch
from tests.bench.programs import Conversation
from tests.bench.rows import Goal, Row, percentile
from tests.bench.stage import Stage, next_port
from tests.support.asking import asked_in_loops

PART = "reaction without guard"
_PATIENCE = 2.0
_WARM_UP = 5  # listens that are not counted: the first ones load modules
_APART = (0.01, 0.04)  # seconds between listens; some meet the daemon during a full pass
_IN_A_ROW = (0.0, 0.0)  # the daemon is still reading back the last change
_COMMANDS = ("plan", "reload", "status")
_P50, _P99, _BESIDE = Goal("≤", 0.5), Goal("≤", 5), Goal("≤", 20)
_UDP_P99 = Goal("≤", 10)


def measure(stage: Stage) -> Iterator[Row]:
    """p50, p99 and the maximum: single listens, in a row, UDP, and beside requests in loops."""
    with stage.daemon() as daemon, Watch(stage.lab.node) as watch, stage.rank() as rank:
        took, missed = _listens(stage, rank, watch, _APART)
        in_a_row, missed_in_a_row = _listens(stage, rank, watch, _IN_A_ROW)
        udp, missed_udp = _listens(stage, rank, watch, _APART, "bind")
        with asked_in_loops(daemon.runtime / "control.sock", *_COMMANDS):
            beside, missed_beside = _listens(stage, rank, watch, _APART)
    yield from rows("listen() to rule", took, missed, {50: _P50, 99: _P99})
    yield from rows("listens in a row", in_a_row, missed_in_a_row, {})
    yield from rows("UDP bind() to rule", udp, missed_udp, {99: _UDP_P99})
    yield from rows(f"beside {', '.join(_COMMANDS)} in loops", beside, missed_beside, {99: _BESIDE})


def _listens(
    stage: Stage, rank: Conversation, watch: Watch, pause: tuple[float, float], verb: str = "open"
) -> tuple[list[float], int]:
    """The milliseconds of listens that got a rule, and the number of those without."""
    took: list[float] = []
    missed = 0
    for number in range(_WARM_UP + stage.scale.reactions):
        stage.progress(f"{PART}: listen {number} of {stage.scale.reactions}")
        time.sleep(random.uniform(*pause))
        milliseconds = listen_once(rank, watch, verb)
        if milliseconds is None:
            missed += 1
        elif number >= _WARM_UP:
            took.append(milliseconds)
    return took, missed


def listen_once(rank: Conversation, watch: Watch, verb: str = "open") -> float | None:
    """Milliseconds from listen() (``open``) or ``bind`` to the rule; None: no rule was added."""
    port = next_port()

    def closes_it(commit: Commit) -> bool:
        return port in commit.closed

    begun = int(rank.ask(f"{verb} {port}"))
    commit = watch.until(closes_it, _PATIENCE)
    rank.ask("close")
    return None if commit is None else (commit.at - begun) / 1e6


def rows(name: str, took: list[float], missed: int, goals: Mapping[int, Goal]) -> Iterator[Row]:
    """The figures; there are none if a listen got no rule at all."""
    note = f"{len(took)} listens" + (f", {missed} without a rule!" if missed else "")
    for percent in (50, 99, 100):
        value = percentile(took, percent) if took and not missed else None
        label = "max" if percent == 100 else f"p{percent}"
        yield Row(PART, f"{name}, {label}", value, "ms", goal=goals.get(percent), note=note)
