"""From `listen()` to the rule, where no guard stands before it.

Method: the workload reads the clock right before it calls listen(), and prints it. The kernel
notifies of the daemon's transaction right after its rules took effect; watch.c reads the same
clock when that comes. So the figure errs to our disadvantage, by some ten microseconds. The
commit that counts is the one that puts just this port into a walled set. The workload runs in a
cgroup that it shares with others, so no guard can cover it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.commits import Commit, Watch
from tests.bench.programs import Conversation
from tests.bench.rows import Goal, Row, percentile
from tests.bench.stage import Stage, next_port

PART = "reaction without guard"
_PATIENCE = 2.0
_WARM_UP = 5  # listens that are not counted: the first ones load what the daemon needs


def measure(stage: Stage) -> Iterator[Row]:
    """p50, p99 and the longest."""
    took, missed = [], 0
    with stage.daemon(), Watch(stage.lab.node) as watch, stage.rank() as rank:
        for number in range(_WARM_UP + stage.scale.reactions):
            stage.progress(f"{PART}: listen {number} of {stage.scale.reactions}")
            milliseconds = listen_once(rank, watch)
            if milliseconds is None:
                missed += 1
            elif number >= _WARM_UP:
                took.append(milliseconds)
    yield from rows(took, missed)


def listen_once(rank: Conversation, watch: Watch) -> float | None:
    """Milliseconds from listen() to the rule; None: no rule came."""
    port = next_port()

    def closes_it(commit: Commit) -> bool:
        return port in commit.closed

    begun = int(rank.ask(f"open {port}"))
    commit = watch.until(closes_it, _PATIENCE)
    rank.ask("close")
    return None if commit is None else (commit.at - begun) / 1e6


def rows(took: list[float], missed: int) -> Iterator[Row]:
    """The figures, and the listens that got no rule at all."""
    goals = {"p50": (50, Goal("≤", 0.5)), "p99": (99, Goal("≤", 5)), "max": (100, None)}
    note = f"{len(took)} listens" + (f", {missed} without a rule!" if missed else "")
    for name, (percent, goal) in goals.items():
        value = percentile(took, percent) if took and not missed else None
        yield Row(PART, f"listen() to rule, {name}", value, "ms", goal=goal, note=note)
