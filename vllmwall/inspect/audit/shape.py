"""The JSON of `vllmwall audit --json`, as types. A key never changes its meaning."""

from __future__ import annotations

from typing import Literal

from vllmwall.api.typed import TypedDict

AUDIT_VERSION = 1

SeverityWord = Literal["critical", "high", "medium", "low", "info"]


class FindingJson(TypedDict):
    """Something to change. ``seen`` says what was seen, never a secret; ``pid`` is of the
    server process that it was seen on."""

    id: str
    severity: SeverityWord
    workload: str
    stack: str
    pid: int
    title: str
    seen: str
    why: str
    remedy: str
    source: str


class UncheckedJson(TypedDict):
    """A check that could not be made. It is neither a finding nor its absence."""

    id: str
    workload: str
    pid: int
    reason: str


class CountsJson(TypedDict):
    """How many findings there are of each severity."""

    critical: int
    high: int
    medium: int
    low: int
    info: int


class AuditJson(TypedDict):
    """The answer to `vllmwall audit`. ``failed``: a finding is as bad as ``fail_on`` or worse.

    ``time`` is in seconds since the epoch. ``daemon`` is True where a daemon told which walls
    stand; without one every port counts as open. ``accepted`` are findings that the
    configuration accepts. A workload may have several server processes, and a Ray node has.
    """

    version: int
    host: str
    time: float
    daemon: bool
    workloads: int
    servers: int
    fail_on: str
    failed: bool
    counts: CountsJson
    findings: list[FindingJson]
    accepted: list[FindingJson]
    unchecked: list[UncheckedJson]
    problems: list[str]
