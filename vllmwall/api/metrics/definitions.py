"""The metrics: what each is called, means and holds. Pure; needs no Prometheus library.

`DEFINITIONS` is the one place: the exporter, docs/reference/metrics.md and the tests of the alert
rules and of the dashboard read it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from vllmwall.api.status import status_of
from vllmwall.api.status_answer import UNPROVEN, NamespaceStatus, Status
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.facts import DaemonFacts, ReservationKind
from vllmwall.engine.histograms import Histogram, Measures
from vllmwall.engine.refusals import Total
from vllmwall.engine.status_facts import StatusFacts
from vllmwall.model import Proto

Labels = tuple[str, ...]


@dataclass(frozen=True)
class MetricFacts:
    """Everything that the metrics are made of.

    ``drops`` are refused packets by (namespace, role), ``sources`` that were refused by namespace,
    ``events`` since the daemon started. ``bans`` are the active ones, None: not known.
    """

    status: StatusFacts
    daemon: DaemonFacts
    measures: Measures
    events: Mapping[EventKey, int] = field(default_factory=dict)
    drops: Mapping[tuple[str, str], Total] = field(default_factory=dict)
    sources: Mapping[str, int] = field(default_factory=dict)
    bans: int | None = None


Sample = tuple[Labels, float]
Source = Callable[[MetricFacts, Status], Iterable[Sample]]
HistogramSource = Callable[[MetricFacts], Iterable[tuple[Labels, Histogram]]]


@dataclass(frozen=True)
class Definition:
    """One metric. ``name`` is as Prometheus shows it (a counter's ends in ``_total``)."""

    name: str
    kind: Literal["gauge", "counter", "histogram", "info"]
    help: str
    labels: Labels = ()
    samples: Source = field(default=lambda facts, status: (), compare=False)
    histograms: HistogramSource = field(default=lambda facts: (), compare=False)


def _one(value: Callable[[MetricFacts, Status], float]) -> Source:
    return lambda facts, status: [((), value(facts, status))]


def _tally(labels: Iterable[Labels]) -> list[Sample]:
    return [(one, float(number)) for one, number in sorted(Counter(labels).items())]


def _listeners(_: MetricFacts, status: Status) -> Iterable[Sample]:
    return _tally(
        (workload.stack, one.role, ",".join(one.audience), one.rule)
        for workload in status.workloads
        for one in workload.listeners
        if one.proto != Proto.UNIX.value
    )


def _with_walls(status: Status) -> Iterator[NamespaceStatus]:
    """Without those where no wall is wanted, so that `down` is one alert and not several."""
    return (space for space in status.namespaces if space.wall != "none")


def _by_namespace(key: Callable[[NamespaceStatus], float]) -> Source:
    def samples(_: MetricFacts, status: Status) -> Iterator[Sample]:
        for space in _with_walls(status):
            yield (space.name,), key(space)

    return samples


def _guards(_: MetricFacts, status: Status) -> Iterator[Sample]:
    for space in _with_walls(status):
        yield (space.name,), len(space.guarded)


def _protection(_: MetricFacts, status: Status) -> Iterator[Sample]:
    for space in _with_walls(status):
        yield (space.name, space.protection.partition(":")[0] or "unknown"), 1


def _drops(attribute: str) -> Source:
    return lambda facts, status: [
        (where, float(getattr(drops, attribute))) for where, drops in sorted(facts.drops.items())
    ]


def _reservations(_: MetricFacts, status: Status) -> Iterator[Sample]:
    found = Counter(one.kind for one in status.reservations)
    for kind in get_args(ReservationKind):
        yield (kind,), float(found[kind])


def _unproven(_: MetricFacts, status: Status) -> Iterable[Sample]:
    found = Counter(
        workload.stack
        for workload in status.workloads
        for one in workload.listeners
        if one.reason == UNPROVEN
    )
    return [((stack,), float(number)) for stack, number in sorted(found.items())]


def _failing(_: MetricFacts, status: Status) -> Iterable[Sample]:
    found: dict[Labels, float] = {}
    for one in status.peers.sources:
        key = (one.kind, one.name)
        found[key] = max(found.get(key, 0.0), float(one.error is not None))
    return sorted(found.items())


def _held(_: MetricFacts, status: Status) -> Iterable[Sample]:
    found: dict[Labels, float] = {}
    for one in status.peers.sources:
        if one.kind in ("file", "dns"):
            lost = sum(held.until is None for held in one.held)
            found[one.kind, one.name, "accepted"] = lost
            found[one.kind, one.name, "time"] = len(one.held) - lost
    return sorted(found.items())


def _events(facts: MetricFacts, _: Status) -> Iterator[Sample]:
    for one in EventKey:
        yield (one.key,), facts.events.get(one, 0)


def _last_pass(facts: MetricFacts, _: Status) -> Iterator[Sample]:
    if facts.daemon.last_pass is not None:
        yield (), facts.daemon.last_pass.at


def _bans(facts: MetricFacts, _: Status) -> Iterator[Sample]:
    if facts.bans is not None:
        yield (), facts.bans


def _passes(facts: MetricFacts) -> Iterator[tuple[Labels, Histogram]]:
    yield ("full",), facts.measures.full
    yield ("quick",), facts.measures.quick


DEFINITIONS: tuple[Definition, ...] = (
    Definition(
        "vllmwall_build_info",
        "info",
        "Always 1; the version is that of the running vllmwall.",
        ("version",),
        lambda facts, status: [((facts.daemon.version,), 1)],
    ),
    Definition(
        "vllmwall_backend_info",
        "info",
        "Always 1; what enforces, and where events come from (tracefs, or poll: looking every "
        "second).",
        ("backend", "events"),
        lambda facts, status: [((status.backend.name, facts.daemon.events), 1)],
    ),
    Definition(
        "vllmwall_mode_info",
        "info",
        "Always 1; enforce, audit (counts and drops nothing) or down.",
        ("mode",),
        lambda facts, status: [((status.mode,), 1)],
    ),
    Definition(
        "vllmwall_safe",
        "gauge",
        "1 when every wall was read back just now and is as it must be, without a reservation; 0 "
        "when one is not, or cannot be read, or drops nothing.",
        (),
        _one(lambda facts, status: float(status.safe is True)),
    ),
    Definition(
        "vllmwall_reservations",
        "gauge",
        "Reasons why packets may get past walls that are as they must be, by kind, as `vllmwall "
        "status` lists them.",
        ("kind",),
        _reservations,
    ),
    Definition(
        "vllmwall_unproven_apis",
        "gauge",
        "Listeners that look like web servers and are not proven to be APIs, so that clients may "
        "wait: `vllmwall status` has the command that opens each.",
        ("stack",),
        _unproven,
    ),
    Definition(
        "vllmwall_wall_up",
        "gauge",
        "1 when the wall of the namespace was read back just now and is as it must be; 0 when it "
        "is missing, altered or cannot be read.",
        ("netns",),
        _by_namespace(lambda space: float(space.wall == "active")),
    ),
    Definition(
        "vllmwall_wall_protection_info",
        "info",
        "Always 1; owned (the kernel lets no other program change the table) or watched (other "
        "programs' changes are noticed and repaired).",
        ("netns", "protection"),
        _protection,
    ),
    Definition(
        "vllmwall_guards",
        "gauge",
        "Active guards: cgroups whose ports are closed before they exist.",
        ("netns",),
        _guards,
    ),
    Definition(
        "vllmwall_workloads",
        "gauge",
        "Workloads on this node.",
        ("stack", "guard"),
        lambda facts, status: _tally((one.stack, one.guard.state) for one in status.workloads),
    ),
    Definition(
        "vllmwall_listeners",
        "gauge",
        "Listeners of workloads, without unix sockets. rule: active, none (needs none: loopback, "
        "failsafe), missing (it is open), unknown (could not be read).",
        ("stack", "role", "audience", "rule"),
        _listeners,
    ),
    Definition(
        "vllmwall_refused_packets_total",
        "counter",
        "Packets that the wall refused (in audit mode: would have refused), by the role of the "
        "port. other: no listener of a workload was known there.",
        ("netns", "role"),
        _drops("packets"),
    ),
    Definition(
        "vllmwall_refused_bytes_total",
        "counter",
        "Bytes of the refused packets, headers included.",
        ("netns", "role"),
        _drops("bytes"),
    ),
    Definition(
        "vllmwall_refused_sources",
        "gauge",
        "Different addresses that were refused within the last hour (as far as the kernel could "
        "remember them).",
        ("netns",),
        lambda facts, status: [((name,), n) for name, n in sorted(facts.sources.items())],
    ),
    Definition(
        "vllmwall_peer_networks",
        "gauge",
        "Networks that are trusted, after merging.",
        (),
        _one(lambda facts, status: len(status.peers.networks)),
    ),
    Definition(
        "vllmwall_peer_source_failing",
        "gauge",
        "1 when a source of peers could not be read; its last good answer stays in force.",
        ("kind", "source"),
        _failing,
    ),
    Definition(
        "vllmwall_peer_networks_held",
        "gauge",
        "Networks that a source no longer names and that are still trusted: for a time, or until "
        "their loss is accepted.",
        ("kind", "source", "until"),
        _held,
    ),
    Definition(
        "vllmwall_adopted_hosts",
        "gauge",
        "Hosts that had connections before the first wall of a workload and may connect until it "
        "ends.",
        (),
        _one(lambda facts, status: sum(len(one.hosts) for one in status.adopted)),
    ),
    Definition(
        "vllmwall_adopted_open_ports",
        "gauge",
        "Ports of web servers that had clients before the first wall of a workload and are open "
        "until it ends.",
        (),
        _one(lambda facts, status: sum(len(one.open_ports) for one in status.adopted)),
    ),
    Definition("vllmwall_bans", "gauge", "Active bans.", (), _bans),
    Definition(
        "vllmwall_config_loaded_timestamp_seconds",
        "gauge",
        "When the configuration in force was loaded.",
        (),
        _one(lambda facts, status: status.config.loaded),
    ),
    Definition(
        "vllmwall_config_refused",
        "gauge",
        "1 when a newer configuration was refused and the old one is still in force.",
        (),
        _one(lambda facts, status: float(status.config.error is not None)),
    ),
    Definition(
        "vllmwall_start_timestamp_seconds",
        "gauge",
        "When the daemon started.",
        (),
        _one(lambda facts, status: facts.daemon.started),
    ),
    Definition(
        "vllmwall_last_pass_timestamp_seconds",
        "gauge",
        "When the newest full pass ended.",
        (),
        _last_pass,
    ),
    Definition(
        "vllmwall_events_total",
        "counter",
        "Events by kind, as `vllmwall events --json` names them: table_modified (another program "
        "modified our table), pass_failed, wall_failed, config_invalid and the others.",
        ("kind",),
        _events,
    ),
    Definition(
        "vllmwall_kernel_events_lost_total",
        "counter",
        "Events that the kernel had to drop; each time a full pass followed.",
        (),
        _one(lambda facts, status: facts.daemon.events_lost),
    ),
    Definition(
        "vllmwall_pass_duration_seconds",
        "histogram",
        "Duration of passes. full: everything is read again; quick: only the subject of an event.",
        ("kind",),
        histograms=_passes,
    ),
    Definition(
        "vllmwall_reaction_seconds",
        "histogram",
        "From listen() in a workload to the rule that closes the port, by the kernel's own time "
        "of the event. With a guard the port was closed all along.",
        histograms=lambda facts: [((), facts.measures.reaction)],
    ),
    Definition(
        "vllmwall_repair_seconds",
        "histogram",
        "From the notification that another program modified a wall to the repaired wall.",
        histograms=lambda facts: [((), facts.measures.repair)],
    ),
)


def gathered(facts: MetricFacts) -> Iterator[tuple[Definition, list[Sample]]]:
    """Every metric that is no histogram, with its samples."""
    status = status_of(facts.status)
    for one in DEFINITIONS:
        if one.kind != "histogram":
            yield one, list(one.samples(facts, status))
