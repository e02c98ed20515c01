"""One finding of `vllmwall doctor`, and its answer as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Health(str, Enum):
    """``warn``: it works with a limitation. ``fail``: the node is not fully protected until the
    remedy is applied."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Diagnosis:
    """One check: ``seen`` is what was found, ``remedy`` what to do; empty: nothing."""

    subject: str
    state: Health
    seen: str
    remedy: str = ""


def ok(subject: str, seen: str) -> Diagnosis:
    """Nothing to do."""
    return Diagnosis(subject, Health.OK, seen)


def warn(subject: str, seen: str, remedy: str) -> Diagnosis:
    """A limitation."""
    return Diagnosis(subject, Health.WARN, seen, remedy)


def fail(subject: str, seen: str, remedy: str) -> Diagnosis:
    """A lack of protection."""
    return Diagnosis(subject, Health.FAIL, seen, remedy)


@dataclass(frozen=True)
class Examination:
    """The answer of `vllmwall doctor --json`. ``healthy``: nothing failed."""

    version: int
    healthy: bool
    diagnoses: tuple[Diagnosis, ...]


def examination(found: Iterable[Diagnosis]) -> Examination:
    """The diagnoses as one answer."""
    diagnoses = tuple(found)
    return Examination(1, all(one.state is not Health.FAIL for one in diagnoses), diagnoses)
