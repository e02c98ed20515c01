"""Every finding, once seen and once not, and never from what could not be read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.inspect.audit.audit_cases import (
    CASES,
    container,
    internal,
    place,
    ray_node,
    server,
)
from vllmwall.inspect.audit.judge import judge
from vllmwall.inspect.audit.rules import knobs
from vllmwall.inspect.audit.types import CommandLine, Environment, Severity, Subject, Weights
from vllmwall.model import Role, Stack

RULES = {rule.id: rule for rule in knobs().finding}


def found(subject: Subject) -> dict[str, Severity]:
    return {one.id: one.severity for one in judge([subject]).findings}


def unknown(subject: Subject) -> set[str]:
    return {one.id for one in judge([subject]).unchecked}


@pytest.mark.parametrize(("rule", "bad", "good"), CASES, ids=[case[0] for case in CASES])
def test_a_finding_is_there_where_it_is_wrong_and_gone_where_it_is_put_right(
    rule: str, bad: Subject, good: Subject
) -> None:
    """Each row of the table, by a server that has it and one that has not."""
    assert rule in found(bad)
    assert rule not in found(good)
    assert rule not in unknown(good)


def test_no_row_of_the_table_is_without_a_case() -> None:
    """A new knob needs its pair."""
    assert RULES.keys() == {case[0] for case in CASES}


@pytest.mark.parametrize(("rule", "bad", "_"), CASES, ids=[case[0] for case in CASES])
def test_what_could_not_be_read_is_unknown_and_never_wrong(
    rule: str, bad: Subject, _: Subject
) -> None:
    """A renamed process hides its flags and variables; silence is no evidence."""
    hidden = replace(bad, command=CommandLine(), environment=Environment())
    if not RULES[rule].flags and not RULES[rule].variables:
        return
    if rule == "lmdeploy-proxy-nodes":  # from 0.12 on no key would help
        hidden = replace(hidden, versions={"lmdeploy": "0.11.1"})
    assert rule not in found(hidden)
    silent = {"vllm-media-redirects"}  # where the list of domains is hidden, that is unknown
    assert rule in unknown(hidden) | silent


def test_tls_is_not_missed_where_the_command_line_is_hidden() -> None:
    """The certificate may be on it."""
    subject = server(public="1.2.3.4", command=CommandLine())
    assert "api-no-tls" not in found(subject)
    assert "api-no-tls" in unknown(subject)


@pytest.mark.parametrize("part", ["command", "environment"])
def test_a_key_may_stand_in_either_place(part: str) -> None:
    """Half of the places read is not enough to say that there is none."""
    hidden = {"command": CommandLine(), "environment": Environment()}[part]
    subject = replace(server(), **{part: hidden})  # type: ignore[arg-type]
    assert "vllm-no-api-key" not in found(subject)
    assert "vllm-no-api-key" in unknown(subject)


def test_what_is_left_of_an_overwritten_environment_still_counts() -> None:
    """What was seen was there, whatever else is gone."""
    subject = server(environment=Environment({"VLLM_SERVER_DEV_MODE": "1"}, complete=False))
    assert "vllm-dev-mode" in found(subject)


@pytest.mark.parametrize(
    ("version", "open_there", "guarded_there"),
    [
        ("0.9.0", ["/invocations", "/v2/rerank"], ["/classify", "/pause"]),
        ("0.13.0", ["/invocations", "/pause, /resume"], ["/kv_event_sources"]),
        ("0.16.0", ["/inference/v1/generate"], ["/pause"]),
        ("0.22.0", ["/invocations", "/generative_scoring"], ["/v2/rerank", "/v2/embed"]),
        ("0.33.0", ["/kv_event_sources", "/pooling"], ["/inference/v1/generate"]),
    ],
)
def test_the_endpoints_without_a_key_are_those_of_the_version(
    version: str, open_there: list[str], guarded_there: list[str]
) -> None:
    """By facts/endpoints.md."""
    subject = server("--api-key K", versions={"vllm": version})
    [one] = [one for one in judge([subject]).findings if one.id == "vllm-key-is-not-all"]
    assert all(path in one.seen for path in open_there)
    assert not any(path in one.seen for path in guarded_there)


def test_a_key_alone_is_not_judged_without_a_version() -> None:
    """Which endpoints stay open depends on it."""
    assert "vllm-key-is-not-all" in unknown(server("--api-key K", versions={}))


def test_behind_our_wall_an_open_port_weighs_less() -> None:
    """Strangers do not get there; peers do."""
    assert found(internal(Role.TCPSTORE, "::"))["tcpstore-wildcard"] is Severity.HIGH
    walled = server(places=(place("::", 29500, Role.TCPSTORE, walled=True),))
    assert found(walled)["tcpstore-wildcard"] is Severity.INFO
    both = server(places=(*walled.places, place("::", 29501, Role.TCPSTORE)))
    assert found(both)["tcpstore-wildcard"] is Severity.HIGH


def test_an_api_for_peers_only_weighs_less_without_a_key() -> None:
    """api = "peers" in the policy."""
    subject = server(places=(place("0.0.0.0", walled=True),))
    assert found(server())["vllm-no-api-key"] is Severity.HIGH
    assert found(subject)["vllm-no-api-key"] is Severity.LOW


def test_media_weigh_less_where_the_model_may_take_none() -> None:
    """A guess does not fail a check."""
    assert found(server())["vllm-media-domains"] is Severity.MEDIUM
    sees = server(weights=Weights(multimodal=True))
    assert found(sees)["vllm-media-domains"] is Severity.HIGH


def test_privileged_is_not_told_twice() -> None:
    """Every capability is one finding, not also a list of forty."""
    bad = container(effective=(1 << 41) - 1, bounding=(1 << 41) - 1)
    assert "container-capabilities" not in found(bad)


def test_a_process_that_is_no_container_is_not_judged_as_one() -> None:
    """A service of the host shares its namespaces by nature."""
    assert not any(name.startswith("container-") for name in found(server()))


def test_other_stacks_are_not_held_to_vllms_table() -> None:
    """A torch job has no API."""
    subject = replace(server(), stack=Stack.TORCH, part="agent", model="")
    assert not any(name.startswith(("vllm", "api")) for name in found(subject))


def test_one_thing_is_told_once() -> None:
    """Two processes of one workload with the same finding are one row."""
    twins = [server(), replace(server(), pid=4712)]
    findings = judge(twins).findings
    assert len(findings) == len({(one.id, one.seen) for one in findings})


def test_the_worst_comes_first() -> None:
    """People read the top."""
    subject = server("--enable-tokenizer-info-endpoint", {"VLLM_SERVER_DEV_MODE": "1"})
    severities = [one.severity for one in judge([subject]).findings]
    assert severities == sorted(severities, key=lambda one: one.rank, reverse=True)
    assert severities[0] is Severity.CRITICAL


def test_a_ray_that_may_ask_for_a_token_by_default_is_unknown() -> None:
    """Announced for all clusters from 2.61 on; before, an unset variable is an open cluster."""
    assert "ray-dashboard-open" in unknown(ray_node("2.61.0", ""))
    assert "ray-dashboard-open" not in found(ray_node("2.61.0", ""))
    assert "ray-dashboard-open" in found(ray_node("2.60.0", ""))


@pytest.mark.parametrize("subject", [ray_node("2.60.0", None), ray_node("", "token")])
def test_an_unread_token_or_version_of_ray_is_less_severe_than_none(subject: Subject) -> None:
    """And no reason for silence: what it runs is code."""
    assert found(subject)["ray-dashboard-open"] is Severity.HIGH


@pytest.mark.parametrize(
    "subject",
    [
        server("--api-key K", {"VLLM_USE_RUST_FRONTEND": "1"}),
        server("--api-key K", part="rust"),
    ],
)
def test_the_frontend_in_rust_has_no_invocations(subject: Subject) -> None:
    """The others without a key stay."""
    [seen] = [one for one in judge([subject]).findings if one.id == "vllm-key-is-not-all"]
    assert "/invocations" not in seen.seen
    assert "/tokenize" in seen.seen


def test_decisions_are_under_the_key() -> None:
    """POST /v1/decisions of vLLM 0.33: /v1 is guarded."""
    [seen] = [
        one for one in judge([server("--api-key K")]).findings if one.id == "vllm-key-is-not-all"
    ]
    assert "/invocations" in seen.seen
    assert "/v1/" not in seen.seen
