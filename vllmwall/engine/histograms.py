"""Histograms of the daemon's own durations. They cost next to nothing.

The bounds are those of docs/reference/benchmarks.md: from a tenth of a millisecond, which is a
good reaction, to what would be a disaster.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

BOUNDS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
)


@dataclass
class Histogram:
    """How often something took how long, in seconds."""

    sum: float = 0.0
    _counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    def observe(self, seconds: float) -> None:
        """Count one. A clock that went backwards counts as no time at all."""
        seconds = max(0.0, seconds)
        self.sum += seconds
        self._counts[bisect_left(BOUNDS, seconds)] += 1

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count how long the block took, unless it fails."""
        begun = time.perf_counter()
        yield
        self.observe(time.perf_counter() - begun)

    @property
    def count(self) -> int:
        """How many were counted."""
        return sum(self._counts)

    def cumulative(self) -> Iterator[tuple[str, float]]:
        """Each bound as text, and how many took at most so long; ``+Inf`` last."""
        total = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self._counts, strict=True):
            total += count
            yield bound, total


@dataclass
class Measures:
    """Since the daemon started. ``reaction``: from a listen event to the rule that closes the
    port; ``repair``: from the notice of another program's change to the repaired wall."""

    full: Histogram = field(default_factory=Histogram)
    quick: Histogram = field(default_factory=Histogram)
    reaction: Histogram = field(default_factory=Histogram)
    repair: Histogram = field(default_factory=Histogram)

    def note_reactions(self, seconds: Iterable[float]) -> None:
        """Count reactions."""
        for one in seconds:
            self.reaction.observe(one)
