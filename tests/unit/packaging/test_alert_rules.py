"""Alert rules and dashboard: they ask for what the daemon tells, and the alerts fire."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.scripts import packaging
from vllmwall.api.metrics.definitions import DEFINITIONS
from vllmwall.engine.event_keys import EventKey
from vllmwall.model import Role, Stack

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "packaging" / "prometheus"
RULES = PROMETHEUS / "vllmwall.rules.yml"
TESTS = PROMETHEUS / "vllmwall.rules.test.yml"
DASHBOARD = ROOT / "packaging" / "grafana" / "vllmwall.json"
PROMTOOL = shutil.which("promtool", path=f"{ROOT / '.cache'}:{os.environ['PATH']}")
LABELS_OF_PROMETHEUS = {"instance", "job", "le"}


def shown() -> Iterator[tuple[str, set[str]]]:
    """Every name that a query can ask for, with its labels."""
    for one in DEFINITIONS:
        endings = ("_bucket", "_sum", "_count") if one.kind == "histogram" else ("",)
        for ending in endings:
            yield one.name + ending, {*one.labels, *LABELS_OF_PROMETHEUS}


SHOWN = dict(shown())


def rules() -> list[dict[str, object]]:
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def queries() -> list[str]:
    found = [str(one["expr"]) for one in rules()]
    dashboard = json.loads(DASHBOARD.read_text())
    found += [each["expr"] for panel in dashboard["panels"] for each in panel["targets"]]
    return found + [one["definition"] for one in dashboard["templating"]["list"][1:]]


@pytest.mark.parametrize("query", queries())
def test_a_query_asks_for_metrics_and_labels_that_exist(query: str) -> None:
    """A renamed metric must not become an alert that never fires."""
    names = re.findall(r"vllmwall_\w+", query)
    if not query.startswith("up"):  # Prometheus itself makes that one
        assert names
    assert set(names) <= SHOWN.keys()
    for name, selector in re.findall(r"(vllmwall_\w+)\{([^}]*)\}", query):
        labels = set(re.findall(r"(\w+)\s*[=!]~?", re.sub(r'"[^"]*"', '""', selector)))
        assert labels <= SHOWN[name], name
    grouped = {
        label.strip() for part in re.findall(r"by \(([^)]*)\)", query) for label in part.split(",")
    }
    assert grouped <= {label for name in names for label in SHOWN[name]}


@pytest.mark.parametrize("query", queries())
def test_a_query_compares_with_values_that_exist(query: str) -> None:
    """Kinds of events, roles and states, as the daemon spells them."""
    allowed = {
        "kind": {
            *(one.key for one in EventKey),
            "full",
            "quick",
            "dns",
            "file",
            "static",
            "runtime",
        },
        "role": {role.value for role in Role},
        "stack": {stack.value for stack in Stack},
        "rule": {"active", "none", "missing", "unknown"},
        "mode": {"enforce", "audit", "down"},
    }
    for label, values in re.findall(r'(\w+)!?=~?"([^"$]*)"', query):
        for value in values.split("|") if label in allowed and ".*" not in values else ():
            assert value in allowed[label]


def test_every_alert_says_what_it_is_and_how_bad() -> None:
    """And where: the text of an alert is what somebody reads at night."""
    for one in rules():
        assert {"summary", "description"} == one["annotations"].keys()  # type: ignore[attr-defined]
        assert one["labels"]["severity"] in ("critical", "warning", "info")  # type: ignore[index]


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_is_silent() -> None:
    """promtool runs them."""
    tried: dict[str, set[bool]] = {}
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        for one in test["alert_rule_test"]:
            tried.setdefault(one["alertname"], set()).add(bool(one["exp_alerts"]))
    assert {str(one["alert"]): {True, False} for one in rules()} == tried


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool: tests/setup/promtool fetches it")
@pytest.mark.parametrize("command", ["check", "test"])
def test_promtool_is_content(command: str) -> None:
    """The rules are valid, and do what their tests say."""
    assert PROMTOOL is not None
    file = RULES if command == "check" else TESTS
    done = subprocess.run(
        [PROMTOOL, command, "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_reference_page_is_up_to_date() -> None:
    """`make docs` writes it."""
    made = packaging("metrics_docs")
    assert made.PAGE.read_text() == made.reference()
