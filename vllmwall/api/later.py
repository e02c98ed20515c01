"""An answer that comes after its handler has returned, so that the loop never waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

A = TypeVar("A")


class Later(Generic[A]):
    """The promise of an answer: the handler returns it, and calls `settle` when it knows more.

    ``is_wanted`` tells whether the client still waits. ``guard`` runs the work that makes the
    answer, and turns what it raises into a ControlError.
    """

    def __init__(self) -> None:
        self._work: Callable[[], A] | None = None
        self._deliver: Callable[[Callable[[], A]], None] | None = None
        self._is_wanted: Callable[[], bool] = lambda: True
        self.guard: Callable[[Callable[[], A]], A] = lambda work: work()

    def is_wanted(self) -> bool:
        """Whether the client still waits."""
        return self._is_wanted()

    def settle(self, work: Callable[[], A]) -> None:
        """Answer with what ``work`` returns or raises."""
        self._work = work
        self._flush()

    def attach(
        self, deliver: Callable[[Callable[[], A]], None], is_wanted: Callable[[], bool]
    ) -> None:
        """Set where the answer goes: ``deliver`` runs the work and sends its result."""
        self._deliver, self._is_wanted = deliver, is_wanted
        self._flush()

    def _flush(self) -> None:
        if self._work is not None and self._deliver is not None:
            work, self._work = self._work, None
            if self._is_wanted():
                self._deliver(lambda: self.guard(work))
