"""LMDeploy: ``serve api_server`` and ``serve proxy``. It never renames a process.

Facts: lmdeploy 0.18.0 read, the proxy seen live. With ``--dp`` its children serve, on ports
that stand on no command line.
"""

from __future__ import annotations

from vllmwall.model import Label, Stack
from vllmwall.recognize.api import ApiCase, api_label
from vllmwall.recognize.claims import Candidate, Claim, Scene, Sighting, StackRules, unknown
from vllmwall.recognize.commandline import Flags, read_flags
from vllmwall.recognize.fingerprints import library_label
from vllmwall.recognize.names import short_name

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


def name(scene: Scene) -> str:
    """The model, or ``proxy``."""
    words = scene.candidate(scene.root).command.words
    return short_name(words[2] if len(words) > 2 else "", scene.part_of(scene.root) or "lmdeploy")


def label_listener(sighting: Sighting) -> Label:
    """The role of one listener of an LMDeploy tree."""
    if sighting.is_unix:
        return unknown(sighting)
    return _api(sighting) or library_label(sighting) or unknown(sighting)


def _api(sighting: Sighting) -> Label | None:
    scene = sighting.scene
    line = scene.line(sighting.owner)
    server = next((pid for pid in reversed(line) if scene.part_of(pid) in _PORTS), 0)
    if not server:
        return None
    flags = read_flags(scene.candidate(server).command.args, _KNOWN)
    if server == sighting.owner:
        return api_label(sighting, ApiCase(_own_ports(scene, server, flags), "the server itself"))
    if (flags.number("dp") or 1) > 1 and scene.parents.get(sighting.owner) == server:
        return api_label(sighting, ApiCase(None, "data-parallel server that --dp asks for"))
    return None


def _own_ports(scene: Scene, server: int, flags: Flags) -> dict[int, str]:
    port = flags.number("server-port")
    return {port or _PORTS[scene.part_of(server)]: "flag" if port else "default-port"}


RULES = StackRules(Stack.LMDEPLOY, claim, label_listener, name, frozenset({"lmdeploy"}))
