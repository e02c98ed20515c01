"""`vllmwall doctor`: whether this node has what the wall needs.

Trials happen in a temporary network namespace, so that nothing on the node changes. A check that
could not be made is reported, never counted as ok.
"""

from __future__ import annotations

from collections.abc import Iterator

from vllmwall.api.status_answer import Status
from vllmwall.inspect.doctor.diagnosis import Diagnosis, Examination, Health, examination
from vllmwall.inspect.doctor.firewalls import other_firewalls
from vllmwall.inspect.doctor.kernel import features
from vllmwall.inspect.doctor.libraries import libraries
from vllmwall.inspect.doctor.rules import rules_of_others
from vllmwall.inspect.doctor.service import surroundings
from vllmwall.inspect.doctor.traffic import bypasses

__all__ = ["Diagnosis", "Examination", "Health", "examination", "examine"]


def examine(status: Status | None, why_no_status: str, config: str) -> Iterator[Diagnosis]:
    """Every diagnosis, the daemon's own first. ``status`` is its answer; None: it gave none."""
    yield from surroundings(status, why_no_status, config)
    yield from libraries()
    yield from features(status.daemon if status else None)
    yield from other_firewalls(_api_ports(status))
    yield from rules_of_others(status)
    yield from bypasses()


def _api_ports(status: Status | None) -> tuple[int, ...]:
    """The TCP ports that the daemon knows as public APIs."""
    found = {
        listener.port
        for workload in (status.workloads if status else ())
        for listener in workload.listeners
        if listener.role == "api" and listener.proto == "tcp"
    }
    return tuple(sorted(found))
