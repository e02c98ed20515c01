"""The metrics as text: true to the facts, bounded in number, and never backwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.nodes import facts, with_active
from vllmwall.api.metrics.definitions import DEFINITIONS, MetricFacts
from vllmwall.api.metrics.exposition import exposition
from vllmwall.engine.facts import ConfigFacts, ConfigProblem, DaemonFacts
from vllmwall.engine.histograms import Measures
from vllmwall.engine.status_facts import StatusFacts
from vllmwall.model import Mode
from vllmwall.networks.sources import PeerSource


def told(status: StatusFacts, **more: object) -> dict[tuple[str, frozenset[str]], float]:
    """Name and label values -> value."""
    daemon = DaemonFacts(1, "9.9", 5.0, "tracefs", "", events_lost=4)
    found = MetricFacts(status, daemon, Measures(), **more)  # type: ignore[arg-type]
    text = exposition(found).decode()
    return {
        (one.name, frozenset(one.labels.values())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def plain(name: str, status: StatusFacts) -> float:
    return told(status)[name, frozenset()]


def test_a_good_node_is_told_as_good() -> None:
    """Safe, every wall up, nothing refused."""
    found = told(facts())
    walls = [value for (name, _), value in found.items() if name == "vllmwall_wall_up"]
    assert walls
    assert {1.0} == {*walls, found["vllmwall_safe", frozenset()]}
    assert 0 == found["vllmwall_config_refused", frozenset()]
    assert 4 == found["vllmwall_kernel_events_lost_total", frozenset()]
    assert 1 == found["vllmwall_listeners", frozenset({"vllm", "api", "public", "active"})]


@pytest.mark.parametrize("how", ["missing", "unreadable", "other mode"])
def test_what_was_not_read_back_as_wanted_is_not_up(how: str) -> None:
    """Unknown is never good."""
    good = facts()
    spaces = good.namespaces
    if how == "missing":
        bad = with_active(good, None)
    elif how == "unreadable":
        bad = replace(good, namespaces=tuple(replace(one, error="EPERM") for one in spaces))
    else:
        assert spaces[0].active is not None
        bad = with_active(good, replace(spaces[0].active, mode=Mode.AUDIT))
    found = told(bad)
    assert {0.0} == {v for (n, _), v in found.items() if n in ("vllmwall_wall_up", "vllmwall_safe")}


def test_a_refused_configuration_and_a_failing_source_are_told() -> None:
    """As the alerts expect them."""
    problem = ConfigFacts(problems=(ConfigProblem("f", "k", "m"),))
    assert 1 == plain("vllmwall_config_refused", facts(config=problem))
    sources = (PeerSource("x", "dns", error="no answer"), PeerSource("y", "dns"))
    found = told(facts(sources=sources))
    assert 1 == found["vllmwall_peer_source_failing", frozenset({"dns", "x"})]
    assert 0 == found["vllmwall_peer_source_failing", frozenset({"dns", "y"})]


def test_hostile_names_cannot_break_the_page() -> None:
    """A namespace's name is somebody's own: it stays one label of one line."""
    name = 'x"} 1\nvllmwall_safe 1\\'
    good = facts()
    bad = replace(good, namespaces=tuple(replace(one, name=name) for one in good.namespaces))
    found = told(replace(bad, down=True))
    assert ("vllmwall_wall_up", frozenset({name})) in found
    assert 0 == found["vllmwall_safe", frozenset()]


def test_names_and_helps_are_as_prometheus_wants_them() -> None:
    """Counters end in _total, nothing else does, and each says what it is."""
    for one in DEFINITIONS:
        assert one.name.startswith("vllmwall_")
        assert (one.kind == "counter") == one.name.endswith("_total")
        assert (one.kind == "info") == one.name.endswith("_info")
        assert one.help.endswith(".")
