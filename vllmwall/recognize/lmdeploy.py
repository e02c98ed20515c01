"""LMDeploy: ``serve api_server`` and ``serve proxy``. It never renames a process.

Facts: lmdeploy 0.18.0 read, the proxy seen live. With ``--dp`` its children serve, on ports
that are on no command line.
"""

from __future__ import annotations

from vllmwall.model import Label, Stack
from vllmwall.recognize.api import ApiCase, api_label
from vllmwall.recognize.commandline import Flags, read_flags
from vllmwall.recognize.fingerprints import library_label
from vllmwall.recognize.names import short_name
from vllmwall.recognize.stack_rules import (
    Candidate,
    Claim,
    ListenerContext,
    StackRules,
    WorkloadTree,
    unknown,
)

_PORTS = {"api_server": 23333, "proxy": 8000}
_KNOWN = ("dp", "server-name", "server-port")


def claim(candidate: Candidate) -> Claim | None:
    """A server or the proxy."""
    command = candidate.command
    if command.name != "lmdeploy" and not _is_module(candidate):
        return None
    if command.words[:1] == ("serve",) and command.words[1:2]:
        part = command.words[1]
        return Claim(Stack.LMDEPLOY, part, launched=True) if part in _PORTS else None
    return None


def _is_module(candidate: Candidate) -> bool:
    return any(candidate.command.runs(one) for one in ("lmdeploy", "lmdeploy.cli.entrypoint"))


def name(tree: WorkloadTree) -> str:
    """The model, or ``proxy``."""
    words = tree.candidate(tree.root).command.words
    return short_name(words[2] if len(words) > 2 else "", tree.part_of(tree.root) or "lmdeploy")


def label_listener(context: ListenerContext) -> Label:
    """The role of one listener of an LMDeploy tree."""
    if context.is_unix:
        return unknown(context)
    return _api(context) or library_label(context) or unknown(context)


def _api(context: ListenerContext) -> Label | None:
    tree = context.tree
    line = tree.line(context.owner)
    server = next((pid for pid in reversed(line) if tree.part_of(pid) in _PORTS), 0)
    if not server:
        return None
    flags = read_flags(tree.candidate(server).command.args, _KNOWN)
    if server == context.owner:
        return api_label(context, ApiCase(_own_ports(tree, server, flags), "the server itself"))
    if (flags.number("dp") or 1) > 1 and tree.parents.get(context.owner) == server:
        return api_label(context, ApiCase(None, "data-parallel server that --dp asks for"))
    return None


def _own_ports(tree: WorkloadTree, server: int, flags: Flags) -> dict[int, str]:
    port = flags.number("server-port")
    return {port or _PORTS[tree.part_of(server)]: "flag" if port else "default-port"}


RULES = StackRules(Stack.LMDEPLOY, claim, label_listener, name, frozenset({"lmdeploy"}))
