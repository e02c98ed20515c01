"""What machines get: the published JSON, SARIF, and what the configuration accepts."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date

import pytest
from pydantic import TypeAdapter, ValidationError

from tests.unit.inspect.audit.audit_cases import server
from vllmwall.config.models import Config
from vllmwall.config.values import Acceptance
from vllmwall.inspect.audit.judge import judge
from vllmwall.inspect.audit.output import audit_answer, has_failed, sarif
from vllmwall.inspect.audit.rules import advisories
from vllmwall.inspect.audit.types import Audit, AuditAnswer

DAY = date(2026, 11, 21)
BAD = server("--api-key K --enable-tokenizer-info-endpoint", {"VLLM_SERVER_DEV_MODE": "1"})


def answer(audit: Audit, fail_on: str = "high") -> AuditAnswer:
    return audit_answer(
        audit, host="node1", time=1.0, workloads=1, servers=1, daemon=False, fail_on=fail_on
    )


def accepting(*texts: str) -> Audit:
    config = Config.model_validate({"audit": {"accepted": list(texts)}})
    return judge([BAD], accepted=config.audit.accepted, today=DAY)


def test_the_answer_says_how_old_the_advisories_are() -> None:
    """What was published later is not looked for."""
    shown = answer(Audit()).advisories
    assert date.fromisoformat(shown) == advisories().date


def test_the_json_has_the_published_shape() -> None:
    """Whatever was found."""
    made = asdict(answer(judge([BAD])))
    published = TypeAdapter(AuditAnswer)
    assert published.validate_json(json.dumps(made), strict=True) == answer(judge([BAD]))
    with pytest.raises(ValidationError):
        published.validate_json(json.dumps({**made, "findings": [{}]}))


@pytest.mark.parametrize(
    ("fail_on", "failed"),
    [("critical", True), ("info", True), ("never", False)],
)
def test_the_limit_decides_what_fails(fail_on: str, failed: bool) -> None:
    """And nothing else."""
    assert has_failed(judge([BAD]), fail_on) is failed


def test_what_is_below_the_limit_does_not_fail() -> None:
    """A low finding is no reason to stop a rollout."""
    low = accepting("vllm-[!t]*", "weights*", "key*")
    assert [one.id for one in low.findings] == ["vllm-tokenizer-info"]
    assert not has_failed(low, "medium")
    assert has_failed(low, "low")


def test_accepted_findings_are_counted_and_not_failed_on() -> None:
    """By id, by workload, until a day."""
    accepted = accepting("vllm-dev-mode@llama until 2026-11-21")
    assert [one.id for one in accepted.accepted] == ["vllm-dev-mode"]
    assert "vllm-dev-mode" not in {one.id for one in accepted.findings}
    assert accepting("vllm-dev-mode@mistral").accepted == ()


def test_an_acceptance_that_has_ended_is_said_so_and_counts_no_more() -> None:
    """So that nobody forgets what was put off."""
    ended = accepting("vllm-dev-mode until 2026-11-20")
    assert "vllm-dev-mode" in {one.id for one in ended.findings}
    assert ["audit.accepted: vllm-dev-mode until 2026-11-20 has ended"] == list(ended.problems)


def test_an_acceptance_of_nothing_is_a_mistake() -> None:
    """A typo would accept nothing and say nothing."""
    assert ["audit.accepted: vlm-dev-mode is not the id of a finding"] == list(
        accepting("vlm-dev-mode").problems
    )


@pytest.mark.parametrize("text", ["*", "", "a b", "x until soon", "x until 2026-02-31", "x@"])
def test_what_is_no_acceptance_is_refused(text: str) -> None:
    """With words."""
    with pytest.raises(ValidationError, match=r"names no finding|is not a date"):
        Config.model_validate({"audit": {"accepted": [text]}})


def test_an_acceptance_reads_back_as_it_was_written() -> None:
    """In messages."""
    text = "vllm-dev-mode@llama until 2026-11-21"
    [one] = Config.model_validate({"audit": {"accepted": [text]}}).audit.accepted
    assert one == Acceptance("vllm-dev-mode", "llama", DAY)
    assert str(one) == text


def test_sarif_has_the_structure_that_readers_need() -> None:
    """SARIF 2.1.0: version, one run, a driver with rules, results that point to them."""
    log = sarif(answer(accepting("vllm-dev-mode")), "1.0")
    assert log["version"] == "2.1.0"
    [run] = log["runs"]  # type: ignore[misc]
    rules = run["tool"]["driver"]["rules"]
    assert run["tool"]["driver"]["name"] == "vllmwall"
    ids = [rule["id"] for rule in rules]
    assert len(ids) == len(set(ids))
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in {"none", "note", "warning", "error"}
        assert result["message"]["text"]
        [place] = result["locations"]
        assert place["logicalLocations"][0]["fullyQualifiedName"] == "node1/vllm/llama"
    for rule in rules:
        assert rule["shortDescription"]["text"]
        assert 0 <= float(rule["properties"]["security-severity"]) <= 10
    suppressed = [one["ruleId"] for one in run["results"] if "suppressions" in one]
    assert suppressed == ["vllm-dev-mode"]


def test_a_node_without_findings_is_a_valid_empty_log() -> None:
    """No results, and yet a list."""
    log = sarif(answer(judge([])), "1.0")
    assert log["runs"][0]["results"] == []  # type: ignore[index]
