"""The answer of `vllmwall prove`: what each probe met, and whether that was expected. Pure."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from vllmwall import __version__
from vllmwall.api.units import count
from vllmwall.cidr import host_port
from vllmwall.inspect.prove.plan import Expected, Skipped, Way
from vllmwall.inspect.prove.run import NamespaceResult, ProvedNamespace
from vllmwall.inspect.prove.verdicts import ProbeOutcome, ProbeResult

if TYPE_CHECKING:
    from vllmwall.api.status_answer import Status

_BAD = frozenset({ProbeOutcome.DIFFERENT, ProbeOutcome.UNPROVEN})


@dataclass(frozen=True)
class ProbeReport:
    """One probe. ``address`` is its destination, ``bound`` where the listener listens; ``by`` names
    who closed the port, as far as that is known."""

    namespace: str
    workload: str
    root_pid: int
    role: str
    proto: str
    bound: str
    address: str
    port: int
    source: str
    source_kind: Literal["stranger", "peer"]
    way: Way
    expected: Expected
    seen: Literal["open", "closed", "no answer", "gone"]
    by: str
    outcome: ProbeOutcome

    @property
    def place(self) -> str:
        """The destination: ``tcp 10.0.0.1:29500``."""
        return f"{self.proto} {host_port(self.address, self.port)}"

    @property
    def met(self) -> str:
        """What the probe met, and who closed the port."""
        return f"{self.seen}, {self.by}" if self.by else self.seen


@dataclass(frozen=True)
class Proof:
    """The whole answer. ``time`` is in seconds since the epoch, ``seconds`` the duration;
    ``as_expected`` decides the exit status."""

    version: int
    as_expected: bool
    time: float
    seconds: float
    host: str
    kernel: str
    vllmwall: str
    mode: str
    namespaces: tuple[ProvedNamespace, ...]
    probes: tuple[ProbeReport, ...]
    skipped: tuple[Skipped, ...]
    problems: tuple[str, ...]


def proof_of(
    found: Collection[NamespaceResult], status: Status, begun: float, problems: Iterable[str]
) -> Proof:
    """All results as one answer. ``begun``: `time.time` before the first probe."""
    probes = tuple(_probe(one, result) for one in found for result in one.results)
    return Proof(
        version=1,
        as_expected=not any(one.outcome in _BAD for one in probes),
        time=begun,
        seconds=time.time() - begun,
        host=status.host,
        kernel=platform.release(),
        vllmwall=__version__,
        mode=status.mode,
        namespaces=tuple(one.namespace for one in found),
        probes=probes,
        skipped=tuple(
            replace(each, namespace=one.namespace.name) for one in found for each in one.skipped
        ),
        problems=(*problems, *(problem for one in found for problem in one.problems)),
    )


def summary(proof: Proof) -> str:
    """One line: whether every probe met what was expected."""
    if not proof.probes:
        return "Nothing to prove: no listener of a workload can be reached from outside"
    counts = Counter(one.outcome.value for one in proof.probes)
    parts = ", ".join(sorted(f"{number} {outcome}" for outcome, number in counts.items()))
    start = "All as expected" if proof.as_expected else "NOT as expected"
    probes = count(len(proof.probes), "probe")
    return f"{start}: {probes}, {parts}"


def _probe(found: NamespaceResult, result: ProbeResult) -> ProbeReport:
    probe, target = result.probe, result.probe.target
    return ProbeReport(
        namespace=found.namespace.name,
        workload=target.workload,
        root_pid=target.root_pid,
        role=target.role,
        proto=target.proto.value,
        bound=target.bound,
        address=str(target.address),
        port=target.port,
        source=str(probe.source.address),
        source_kind=probe.source.kind,
        way=probe.way,
        expected=probe.expected,
        seen=result.seen,
        by=result.by,
        outcome=result.outcome,
    )
