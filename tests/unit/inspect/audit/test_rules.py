"""The tables of knobs and vulnerabilities hold together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.support.scripts import packaging
from vllmwall.inspect.audit.checks import CHECKS
from vllmwall.inspect.audit.rules import Cve, Knobs, Rule, cves, knobs
from vllmwall.inspect.audit.types import Severity
from vllmwall.inspect.audit.versions import parse
from vllmwall.model import Stack

ROOT = Path(__file__).parents[4]
PAGE = ROOT / "docs" / "reference" / "findings.md"


@pytest.mark.parametrize("rule", knobs().finding, ids=lambda rule: rule.id)
def test_every_knob_says_how_bad_it_is_what_to_do_and_who_says_so(rule: Rule) -> None:
    """And its check exists."""
    assert rule.check in CHECKS
    assert rule.why.endswith(".")
    assert rule.remedy.endswith(".")
    assert not rule.source.endswith(".")
    if rule.walled is not None:
        assert rule.walled.rank < rule.severity.rank
    assert all(re.fullmatch(r"[a-z][a-z0-9-]+", flag) for flag in rule.flags)
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]+", name) for name in rule.variables)
    for flag in re.findall(r"--([a-z-]+)", rule.remedy):
        assert flag in KNOWN, f"{rule.id} recommends --{flag}"


# What remedies name and no check reads: of vLLM, Docker and Ray.
OTHERS = {"lora-modules", "code-revision", "gpus", "cap-drop", "read-only", "security-opt", "ipc"}
OTHERS |= {
    "generate",
    "pid",
    "shm-size",
    "user",
    "privileged",
    "dashboard-host",
    "ray-client-server-port",
}
KNOWN = OTHERS.union(*(knobs().flags_of(stack) for stack in Stack))


def test_ids_are_given_once() -> None:
    """Configurations name them."""
    ids = [rule.id for rule in knobs().finding] + [cve.id for cve in cves()]
    assert len(ids) == len(set(ids))


def test_every_check_is_used() -> None:
    """What no row names is dead."""
    assert CHECKS.keys() == {rule.check for rule in knobs().finding}


@pytest.mark.parametrize("cve", cves(), ids=lambda cve: cve.id)
def test_every_vulnerability_has_an_end_and_a_remedy(cve: Cve) -> None:
    """An open range would hold for versions that do not exist yet."""
    assert bool(cve.before) != bool(cve.through)
    since = parse(cve.since or "0")
    last = cve.before if cve.before else cve.through
    end = parse(last)
    assert since is not None
    assert end is not None
    assert since < end
    assert last in cve.remedy
    assert cve.severity.rank >= Severity.MEDIUM.rank


def test_variables_of_vulnerabilities_are_read() -> None:
    """Else the condition could never hold."""
    assert {name for cve in cves() for name in cve.variables} <= knobs().variable_names
    for cve in cves():
        stack = {"sglang": Stack.SGLANG, "lmdeploy": Stack.LMDEPLOY}.get(cve.package, Stack.VLLM)
        assert set(cve.flags) <= knobs().flags_of(stack)


def test_the_flags_that_hold_secrets_are_known_as_such() -> None:
    """Their values are dropped; a flag of a key that is not among them would be kept."""
    keys = {flag for stack in Stack for flag in knobs().flags_of(stack) if "key" in flag}
    assert keys - set(knobs().secret.flags) == {"ssl-keyfile"}
    assert {flag for flag in knobs().flags_of(Stack.VLLM) if "token" in flag} <= {
        *knobs().secret.flags,
        "enable-tokenizer-info-endpoint",
    }
    secret = {name for name in knobs().variable_names if re.search("KEY|TOKEN|SECRET", name)}
    assert secret == set(knobs().secret.variables)


def test_a_row_with_a_mistake_is_refused() -> None:
    """Data is checked when it is read."""
    row = knobs().finding[0].model_dump()
    for wrong in ({"severity": "bad"}, {"since": "soon"}, {"remedy": ""}, {"nonsense": 1}):
        with pytest.raises(ValidationError):
            Rule.model_validate({**row, **wrong})
    with pytest.raises(ValidationError):
        Knobs.model_validate({})


def test_the_reference_page_is_what_the_tables_say() -> None:
    """`make docs` after a change of a table."""
    made = packaging("findings")
    assert PAGE.read_text() == made.markdown()
    for rule in knobs().finding:
        assert f"## `{rule.id}`" in PAGE.read_text()
