"""What the configuration teaches about software that vllmwall does not know by itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Match:
    """How a taught workload is found. Every field that is set must hold.

    ``exe`` and ``cgroup`` and ``unit`` and ``image`` are globs; ``argv`` is a glob over the
    command line joined by spaces.
    """

    exe: str | None = None
    argv: str | None = None
    unit: str | None = None
    image: str | None = None
    cgroup: str | None = None


@dataclass(frozen=True)
class Lesson:
    """One ``[[workload]]`` of the configuration: software that vllmwall does not know by itself."""

    name: str
    match: Match
    api_ports: frozenset[int] = frozenset()
