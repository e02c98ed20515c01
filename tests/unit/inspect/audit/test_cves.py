"""Vulnerabilities are told by installed versions, and only where what they need is there."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from tests.support.scripts import packaging
from tests.unit.inspect.audit.audit_cases import server, sglang
from vllmwall import __version__
from vllmwall.inspect.audit.judge import judge
from vllmwall.inspect.audit.rules import Cve, advisories, cves
from vllmwall.inspect.audit.types import CommandLine, Environment
from vllmwall.model import Stack

KEY = {"VLLM_API_KEY": "<set>"}
STACKS = {"sglang": Stack.SGLANG, "lmdeploy": Stack.LMDEPLOY}


def found(versions: dict[str, str], args: str = "", **fields: object) -> dict[str, str]:
    stack = STACKS.get(next(iter(versions), ""), Stack.VLLM)
    subject = server(args, stack=stack, versions=versions, **fields)
    return {one.id: one.seen for one in judge([subject]).findings if one.id.startswith("CVE")}


@pytest.mark.parametrize("cve", cves(), ids=lambda cve: cve.id)
def test_a_vulnerable_version_is_told_and_the_first_good_one_is_not(cve: Cve) -> None:
    """Each row of the table."""
    args = " ".join(f"--{flag} x" for flag in cve.flags)
    beside = {cve.beside.package: "0.1"} if cve.beside else {}
    bad = cve.since or cve.through or "0.1.0"
    good = cve.before or f"{cve.through}.1"
    assert cve.id in found({cve.package: bad, **beside}, args)
    assert cve.id not in found({cve.package: good, **beside}, args)
    assert cve.id not in found({}, args)


def test_the_host_header_needs_an_old_starlette_and_a_key() -> None:
    """CVE-2026-48746 is no hole of a server without a key."""
    old, new = {"vllm": "0.21.0", "starlette": "0.50.0"}, {"vllm": "0.21.0", "starlette": "1.0.1"}
    assert "CVE-2026-48746" in found(old, env=KEY)
    assert "starlette 0.50.0" in found(old, env=KEY)["CVE-2026-48746"]
    assert "CVE-2026-48746" not in found(new, env=KEY)
    assert "CVE-2026-48746" not in found(old)


def test_what_a_vulnerability_needs_counts_as_there_where_it_is_hidden() -> None:
    """The version is evidence enough; a connector may be configured where we cannot look."""
    old = {"vllm": "0.8.0"}
    assert "CVE-2025-32444" not in found(old)
    assert "CVE-2025-32444" in found(old, "--kv-transfer-config {}")
    assert "CVE-2025-32444" in found(old, "--kv-transfer-config.kv_connector Mooncake")
    assert "CVE-2025-32444" in found(old, command=CommandLine(), environment=Environment())


def test_a_fork_with_a_version_of_its_own_is_not_guessed_at() -> None:
    """``vllm-latest`` is no number."""
    assert {} == found({"vllm": "unknown"})


def test_where_later_releases_hold_the_same_code_the_finding_says_so() -> None:
    """The record ends at 0.5.20; the wheel of 0.5.22 unpickles just the same."""
    [seen] = [
        one
        for one in judge([sglang("--enable-dp-attention", versions={"sglang": "0.5.22"})]).findings
        if one.id == "CVE-2026-93034"
    ]
    assert "up to 0.5.20" in seen.why
    assert "beyond 0.5.23" in seen.remedy


@pytest.mark.parametrize(
    ("package", "version", "expected"),
    [
        ("sglang", "0.5.20", {"CVE-2026-15969", "CVE-2026-15976", "CVE-2026-93088"}),
        ("lmdeploy", "0.15.0", {"CVE-2026-119706"}),
        ("lightllm", "1.2.0", {"CVE-2026-93839", "CVE-2026-96560", "CVE-2026-103041"}),
        ("ktransformers", "0.6.3", {"CVE-2026-63767"}),
        ("tensorrt-llm", "1.1.0", {"CVE-2026-24142", "CVE-2025-33255"}),
    ],
)
def test_internal_ports_of_other_packages_are_known(
    package: str, version: str, expected: set[str]
) -> None:
    """These came out clean before."""
    assert expected <= found({package: version}).keys()


def test_a_release_with_old_advisories_is_refused() -> None:
    """60 days, to the day; a build of a branch is never refused for its age."""
    complaint = packaging("advisories").complaint
    day, limit = date(2026, 10, 8), date(2026, 10, 8) + timedelta(days=60)
    assert complaint("1.0.0", day, limit) == ""
    assert "as of 2026-10-08" in complaint("1.0.0", day, limit + timedelta(days=1))
    assert complaint("1.0.0.dev0", day, limit + timedelta(days=1)) == ""


def test_this_version_may_be_released_with_these_advisories() -> None:
    """Nothing is asked of a development version."""
    assert packaging("advisories").complaint(__version__, advisories().date, date.today()) == ""
