"""The stack ``custom``: workload definitions of the configuration (``[[workload]]``).

A definition comes from the administrator, so the ports that it names are ``api``, but only for
listeners of the processes that it matches and of their children.
"""

from __future__ import annotations

from vllmwall.model import Label, Proto, Role, Stack
from vllmwall.recognize.definitions import unit_of
from vllmwall.recognize.fingerprints import library_label
from vllmwall.recognize.rows import name_of
from vllmwall.recognize.stack_rules import (
    Candidate,
    ListenerContext,
    StackRules,
    WorkloadTree,
    label,
    unknown,
)


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
    """The name of the definition, or of the unit that the operator put into our slice, or what a
    row's program serves."""
    if not tree.claims[tree.root].launched or tree.part_of(tree.root) in ("job", "unread"):
        return unit_of(tree.processes[tree.root].cgroup) or "custom"
    names = (one.name for one in tree.defined.get(tree.root, ()))
    return next(names, None) or name_of(tree)


def label_listener(context: ListenerContext) -> Label:
    """A listener of a custom workload that no definition names: internal."""
    if context.is_unix:
        return unknown(context)
    return library_label(context) or unknown(context)


def _claims_nothing(_: Candidate) -> None:
    """Definitions claim processes, before any stack."""


RULES = StackRules(Stack.CUSTOM, _claims_nothing, label_listener, name)
