"""Status facts made from the live recordings, for tests of what people are shown."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

from vllmwall.decide.walls import decide
from vllmwall.engine.facts import BackendFacts
from vllmwall.engine.status_facts import NamespaceFacts, StatusFacts
from vllmwall.model import Policy, Role, Wall
from vllmwall.observe.snapshot import load
from vllmwall.recognize import recognize

RECORDINGS = Path(__file__).parents[1] / "recordings"
POLICY = Policy({Role.API: ("public",)})
PEERS = (ip_network("10.0.0.0/24"),)


def facts(recording: str = "vllm-single", **changes: object) -> StatusFacts:
    """The facts of a node on which everything is as it should be, but for ``changes``."""
    recognition = recognize(load(RECORDINGS / f"{recording}.json"))
    decision = decide(recognition, POLICY, PEERS)
    spaces = tuple(
        NamespaceFacts(inode, f"net:{inode}", wall, wall, None, 3, 180)
        for inode, wall in decision.walls.items()
    )
    found = StatusFacts(
        host="gpu-1",
        now=1.0,
        recognition=recognition,
        policy=POLICY,
        namespaces=spaces,
        peers=PEERS,
        backend=BackendFacts("nftables"),
        skipped=decision.skipped,
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def with_active(found: StatusFacts, active: Wall | None) -> StatusFacts:
    """The same, with another wall read back from the kernel."""
    spaces = tuple(replace(space, active=active) for space in found.namespaces)
    return replace(found, namespaces=spaces)
