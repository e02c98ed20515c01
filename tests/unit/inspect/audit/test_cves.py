"""Vulnerabilities are told by installed versions, and only where what they need is there."""

from __future__ import annotations

import pytest

from tests.unit.inspect.audit.audit_cases import server
from vllmwall.inspect.audit.judge import judge
from vllmwall.inspect.audit.rules import Cve, cves
from vllmwall.inspect.audit.types import CommandLine, Environment

KEY = {"VLLM_API_KEY": "<set>"}


def found(versions: dict[str, str], args: str = "", **fields: object) -> dict[str, str]:
    subject = server(args, versions=versions, **fields)
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
