"""What this node lacks, or has, that matters to the wall: `vllmwall doctor`.

Every test looks or tries for itself, and what it tries it tries in a network namespace that is
thrown away. Nothing on the node is changed, and no test is believed that could not be made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from vllmwall.inspect.doctor.diagnosis import Diagnosis, State
from vllmwall.inspect.doctor.firewalls import beside_us
from vllmwall.inspect.doctor.kernel import features
from vllmwall.inspect.doctor.libraries import libraries
from vllmwall.inspect.doctor.service import surroundings
from vllmwall.inspect.doctor.traffic import past_us

__all__ = ["Diagnosis", "State", "examine"]

Status = Mapping[str, object]


def examine(status: Status | None, why_no_status: str, config: str) -> Iterator[Diagnosis]:
    """Every diagnosis, the daemon's own first. ``status`` is its answer; None: it gave none."""
    parts: tuple[Callable[[], Iterable[Diagnosis]], ...] = (
        lambda: surroundings(status, why_no_status, config),
        libraries,
        features,
        lambda: beside_us(api_ports(status)),
        past_us,
    )
    for part in parts:
        yield from part()


def api_ports(status: Status | None) -> tuple[int, ...]:
    """The TCP ports that the daemon knows as public APIs."""
    workloads = (status or {}).get("workloads")
    found = {
        int(listener["port"])
        for workload in (workloads if isinstance(workloads, list) else [])
        for listener in workload["listeners"]
        if listener["role"] == "api" and listener["proto"] == "tcp"
    }
    return tuple(sorted(found))
