"""Workload definitions: software that vllmwall does not recognize by itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Match:
    """Finds the first process of a workload. Every field that is set must match.

    All are globs; ``argv`` is matched with the command line, joined by spaces.
    """

    exe: str | None = None
    argv: str | None = None
    unit: str | None = None
    image: str | None = None
    cgroup: str | None = None


@dataclass(frozen=True)
class WorkloadDefinition:
    """One ``[[workload]]`` of the configuration."""

    name: str
    match: Match
    api_ports: frozenset[int] = frozenset()
