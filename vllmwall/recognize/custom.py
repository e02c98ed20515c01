"""Software that the configuration taught us: ``[[workload]]`` entries.

A lesson comes from the administrator, so the ports it names are ``api``; but only for
listeners that the processes it matches, or their children, own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate

from vllmwall.model import Label, Process, Proto, Role, Stack
from vllmwall.recognize.claims import Candidate, Scene, Sighting, StackRules, label, unknown
from vllmwall.recognize.definitions import Lesson
from vllmwall.recognize.fingerprints import library_label

_UNIT_ENDINGS = (".service", ".scope")


class Lessons:
    """All lessons, their globs compiled once."""

    def __init__(self, lessons: Sequence[Lesson]) -> None:
        self._tests = [(lesson, _tests(lesson)) for lesson in lessons]

    def matching(self, process: Process) -> tuple[Lesson, ...]:
        """The lessons that match a process; a lesson whose match says nothing never does."""
        return tuple(
            lesson
            for lesson, tests in self._tests
            if tests and all(glob.match(_field(process, name)) for name, glob in tests)
        )


def _tests(lesson: Lesson) -> list[tuple[str, re.Pattern[str]]]:
    return [
        (name, re.compile(translate(glob)))
        for name in ("exe", "argv", "unit", "image", "cgroup")
        if (glob := getattr(lesson.match, name)) is not None
    ]


def _field(process: Process, name: str) -> str:
    """What a glob is held against."""
    if name == "argv":
        return " ".join(process.started_as)
    if name == "unit":
        return unit_of(process.cgroup)
    return {"exe": process.exe, "image": process.image, "cgroup": process.cgroup}[name]


def unit_of(cgroup: str) -> str:
    """The innermost systemd unit of a cgroup path; empty when there is none."""
    parts = cgroup.split("/")
    return next((part for part in reversed(parts) if part.endswith(_UNIT_ENDINGS)), "")


def taught_label(sighting: Sighting) -> Label | None:
    """``api`` where a lesson on the owner or on an ancestor of it names the port."""
    listener, scene = sighting.listener, sighting.scene
    if listener.proto is Proto.UNIX:
        return None
    for pid in scene.line(sighting.owner):
        for lesson in scene.taught.get(pid, ()):
            if listener.port in lesson.api_ports:
                detail = f"workload {lesson.name!r} names port {listener.port}"
                return label(Role.API, 0.99, ("taught", detail))
    return None


def name(scene: Scene) -> str:
    """The name of the lesson, or of the unit that the operator put into our slice."""
    unit = unit_of(scene.processes[scene.root].cgroup)
    return next((lesson.name for lesson in scene.taught.get(scene.root, ())), unit or "custom")


def label_listener(sighting: Sighting) -> Label:
    """A listener of taught software that no lesson names: internal."""
    if sighting.is_unix:
        return unknown(sighting)
    return library_label(sighting) or unknown(sighting)


def _claims_nothing(_: Candidate) -> None:
    """Lessons claim, not the stack's own look at a process."""


RULES = StackRules(Stack.CUSTOM, _claims_nothing, label_listener, name)
