"""What the demo saw: who got what from each listener, and what should have come of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tests.demo.cast import Cast
from tests.support.lab import Host, Lab
from tests.workloads.listening import Listening, listeners_of, try_all
from tests.workloads.starting import API_PORT

NOBODY = "no workload"
NOTHING = "nothing"


@dataclass(frozen=True)
class Seen:
    """One listener and what each side got. ``role`` and ``audience`` are what vllmwall says.

    ``is_workload`` is what the demo knows because it started the processes.
    """

    listening: Listening
    peer: str
    stranger: str
    is_workload: bool
    role: str = ""
    audience: str = ""

    @property
    def is_public(self) -> bool:
        """Meant for everyone: the API, and what is no workload."""
        return self.listening.port == API_PORT or not self.is_workload

    @property
    def where(self) -> str:
        """``*:29400``, ``192.0.2.1:41453``."""
        return f"{self.listening.address}:{self.listening.port}"


def look(lab: Lab, cast: Cast) -> list[Seen]:
    """Have the peer and the stranger try every listener of the node."""
    listeners = [one for one in listeners_of(lab.node) if one.targets(lab.node)]
    peer = try_all(lab.peer, lab.node, listeners)
    stranger = try_all(lab.stranger, lab.node, listeners)
    return [
        Seen(
            one,
            _got(peer[one], one, cast, lab.peer),
            _got(stranger[one], one, cast, lab.stranger),
            is_workload=one.port != cast.bystander_port,
        )
        for one in listeners
    ]


def _got(outcomes: set[str], one: Listening, cast: Cast, who: Host) -> str:
    if outcomes == {"timeout"}:
        return NOTHING
    if outcomes != {"open"}:
        return " and ".join(sorted(outcomes))
    if one.port != API_PORT:
        return "connected"
    try:
        cast.ask(who)
    except (OSError, AssertionError) as error:
        return f"connected, then {error}"
    return "an answer"


def explained(seen: Iterable[Seen], status: dict[str, object]) -> list[Seen]:
    """The same with what vllmwall says about each listener."""
    said = {
        one["port"]: (one["role"], ", ".join(one["audience"]))
        for workload in status["workloads"]  # type: ignore[attr-defined]
        for one in workload["listeners"]
    }
    return [
        replace(one, role=role, audience=audience)
        for one in seen
        for role, audience in [said.get(one.listening.port, (NOBODY, "everyone"))]
    ]


def mistakes(seen: Iterable[Seen]) -> list[str]:
    """What is not as a wall must make it. Empty: all is well."""
    found = []
    for one in seen:
        public = one.is_public
        if one.peer == NOTHING:
            found.append(f"{one.where}: the peer was shut out")
        if public and one.stranger != one.peer:
            found.append(f"{one.where}: the stranger got {one.stranger}, not {one.peer}")
        if not public and one.stranger != NOTHING:
            found.append(f"{one.where}: the stranger got {one.stranger}")
    return found
