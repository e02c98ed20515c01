"""One line of what the doctor says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(str, Enum):
    """``warn``: it works, with less than it could or with something to know. ``fail``: it does
    not guard, or not fully, until the remedy is taken."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Diagnosis:
    """What was looked at, how it is, what was seen, and what to do about it."""

    subject: str
    state: State
    seen: str
    remedy: str = ""


def ok(subject: str, seen: str) -> Diagnosis:
    """Nothing to do."""
    return Diagnosis(subject, State.OK, seen)


def warn(subject: str, seen: str, remedy: str) -> Diagnosis:
    """Something to know."""
    return Diagnosis(subject, State.WARN, seen, remedy)


def fail(subject: str, seen: str, remedy: str) -> Diagnosis:
    """Something to mend."""
    return Diagnosis(subject, State.FAIL, seen, remedy)
