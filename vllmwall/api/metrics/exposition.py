"""Metrics in Prometheus' text format. Imported only where metrics are configured: the library
takes memory that a daemon without them need not have."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vllmwall.api.metrics.definitions import DEFINITIONS, MetricFacts, gathered

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Facts(Collector):
    """Yields one set of facts."""

    def __init__(self, facts: MetricFacts) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        for one, samples in gathered(self._facts):
            family = CounterMetricFamily if one.kind == "counter" else GaugeMetricFamily
            made = family(one.name, one.help, labels=one.labels)
            for labels, value in samples:
                made.add_metric(labels, value)
            yield made
        for one in DEFINITIONS:
            if one.kind == "histogram":
                shown = HistogramMetricFamily(one.name, one.help, labels=one.labels)
                for labels, found in one.histograms(self._facts):
                    shown.add_metric(labels, list(found.cumulative()), found.sum)
                yield shown


def exposition(facts: MetricFacts) -> bytes:
    """The page that Prometheus reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Facts(facts))
    return generate_latest(registry)
