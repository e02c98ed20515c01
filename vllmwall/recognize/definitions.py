"""Workload definitions: software that vllmwall does not recognize by itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property

from vllmwall.model import Process

_UNIT_ENDINGS = (".service", ".scope")


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

    def fits(self, process: Process) -> bool:
        """Whether a process matches. An empty match matches none."""
        tests = self._tests
        return bool(tests) and all(glob.match(_field(process, name)) for name, glob in tests)

    @cached_property
    def _tests(self) -> list[tuple[str, re.Pattern[str]]]:
        return [
            (name, re.compile(translate(glob)))
            for name in ("exe", "argv", "unit", "image", "cgroup")
            if (glob := getattr(self, name)) is not None
        ]


@dataclass(frozen=True)
class WorkloadDefinition:
    """One ``[[workload]]`` of the configuration."""

    name: str
    match: Match
    api_ports: frozenset[int] = frozenset()


def unit_of(cgroup: str) -> str:
    """The innermost systemd unit of a cgroup path; empty when there is none."""
    parts = cgroup.split("/")
    return next((part for part in reversed(parts) if part.endswith(_UNIT_ENDINGS)), "")


def _field(process: Process, name: str) -> str:
    """The text that a glob is matched with."""
    if name == "argv":
        return " ".join(process.started_as)
    if name == "unit":
        return unit_of(process.cgroup)
    return {"exe": process.exe, "image": process.image, "cgroup": process.cgroup}[name]
