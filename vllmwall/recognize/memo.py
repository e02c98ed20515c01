"""Answers about what has not changed since the recognition before.

A recognition with a `Memo` says the same as one without it. It is for nodes with thousands of
processes, where judging each of them again takes a second, and for callers that have other work:
`Memo.pause` is called every few steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from vllmwall.model import Process, Workload
from vllmwall.recognize.stack_rules import Candidate, Claim

_Answer = TypeVar("_Answer")
_STEPS = 32


class Pauses:
    """Calls ``meanwhile`` at every 32nd step: a step takes some ten microseconds."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile, self._left = meanwhile, _STEPS

    def __call__(self) -> None:
        """One step was made."""
        self._left -= 1
        if not self._left:
            self._left = _STEPS
            self._meanwhile()


class Answers(Generic[_Answer]):
    """Answers by pid, each with the values that it was made of.

    What was not asked since `begin` is forgotten at the next one, so there are never more than two
    recognitions have asked for.
    """

    def __init__(self) -> None:
        self._before: dict[int, tuple[object, _Answer]] = {}
        self._now: dict[int, tuple[object, _Answer]] = {}

    def begin(self) -> None:
        """Keep the answers since the last call, and no older ones."""
        self._before, self._now = self._now, {}

    def answer(self, pid: int, of: object, make: Callable[[], _Answer]) -> _Answer:
        """The answer for ``of``, made only where that is not what it was."""
        known = self._now.get(pid) or self._before.get(pid)
        if known is None or not (known[0] is of or known[0] == of):
            known = of, make()
        self._now[pid] = known
        return known[1]


@dataclass(frozen=True)
class Memo:
    """The answers of one recognition after the other, about the same node by the same rules.

    ``pause`` may do anything but change the values or begin another recognition with this memo.
    """

    pause: Callable[[], None] = lambda: None
    candidates: Answers[Candidate] = field(default_factory=Answers)
    claims: Answers[tuple[Claim | None, str]] = field(default_factory=Answers)
    claims_by_listeners: Answers[Claim | None] = field(default_factory=Answers)
    workloads: Answers[tuple[Workload, tuple[str, ...]]] = field(default_factory=Answers)

    def begin(self) -> None:
        """Forget what the recognition before the last one knew."""
        self.candidates.begin()
        self.claims.begin()
        self.claims_by_listeners.begin()
        self.workloads.begin()

    def candidate(self, process: Process) -> Candidate:
        """A process with its command line."""
        return self.candidates.answer(process.pid, process, lambda: Candidate.of(process))
