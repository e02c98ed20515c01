"""The stack ``custom``: workload definitions of the configuration (``[[workload]]``).

A definition comes from the administrator, so the ports that it names are ``api``, but only for
listeners of the processes that it matches and of their children.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate

from vllmwall.model import Label, Process, Proto, Role, Stack
from vllmwall.recognize.definitions import WorkloadDefinition
from vllmwall.recognize.fingerprints import library_label
from vllmwall.recognize.stack_rules import (
    Candidate,
    ListenerContext,
    StackRules,
    WorkloadTree,
    label,
    unknown,
)

_UNIT_ENDINGS = (".service", ".scope")


class CompiledDefinitions:
    """All definitions, their globs compiled once."""

    def __init__(self, definitions: Sequence[WorkloadDefinition]) -> None:
        self._tests = [(definition, _tests(definition)) for definition in definitions]

    def matching(self, process: Process) -> tuple[WorkloadDefinition, ...]:
        """The definitions that match a process. An empty match matches none."""
        return tuple(
            definition
            for definition, tests in self._tests
            if tests and all(glob.match(_field(process, name)) for name, glob in tests)
        )


def _tests(definition: WorkloadDefinition) -> list[tuple[str, re.Pattern[str]]]:
    return [
        (name, re.compile(translate(glob)))
        for name in ("exe", "argv", "unit", "image", "cgroup")
        if (glob := getattr(definition.match, name)) is not None
    ]


def _field(process: Process, name: str) -> str:
    """The text that a glob is matched with."""
    if name == "argv":
        return " ".join(process.started_as)
    if name == "unit":
        return unit_of(process.cgroup)
    return {"exe": process.exe, "image": process.image, "cgroup": process.cgroup}[name]


def unit_of(cgroup: str) -> str:
    """The innermost systemd unit of a cgroup path; empty when there is none."""
    parts = cgroup.split("/")
    return next((part for part in reversed(parts) if part.endswith(_UNIT_ENDINGS)), "")


def defined_label(context: ListenerContext) -> Label | None:
    """``api`` where a definition on the owner or on an ancestor of it names the port."""
    listener, tree = context.listener, context.tree
    if listener.proto is Proto.UNIX:
        return None
    for pid in tree.line(context.owner):
        for definition in tree.defined.get(pid, ()):
            if listener.port in definition.api_ports:
                detail = f"workload {definition.name!r} names port {listener.port}"
                return label(Role.API, 0.99, ("defined", detail))
    return None


def name(tree: WorkloadTree) -> str:
    """The name of the definition, or of the unit that the operator put into our slice."""
    names = (one.name for one in tree.defined.get(tree.root, ()))
    return next(names, unit_of(tree.processes[tree.root].cgroup) or "custom")


def label_listener(context: ListenerContext) -> Label:
    """A listener of a custom workload that no definition names: internal."""
    if context.is_unix:
        return unknown(context)
    return library_label(context) or unknown(context)


def _claims_nothing(_: Candidate) -> None:
    """Definitions claim processes, before any stack."""


RULES = StackRules(Stack.CUSTOM, _claims_nothing, label_listener, name)
