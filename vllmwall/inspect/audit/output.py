"""The answer of an audit, and its findings as SARIF 2.1.0. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from vllmwall.inspect.audit.rules import advisories
from vllmwall.inspect.audit.types import (
    AUDIT_VERSION,
    Audit,
    AuditAnswer,
    Counts,
    Finding,
    Severity,
)

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
# SARIF 2.1.0 §3.27.10 knows three; the number is what code hosts sort by.
_LEVELS: Mapping[Severity, tuple[str, str]] = {
    Severity.CRITICAL: ("error", "9.5"),
    Severity.HIGH: ("error", "8.0"),
    Severity.MEDIUM: ("warning", "5.0"),
    Severity.LOW: ("note", "3.0"),
    Severity.INFO: ("note", "0.0"),
}

_ACCEPTED = [{"kind": "external", "justification": "accepted in vllmwall's configuration"}]


def has_failed(audit: Audit, fail_on: str) -> bool:
    """A finding is as severe as ``fail_on`` (a severity, or ``never``), or more."""
    if fail_on == "never":
        return False
    limit = Severity(fail_on).rank
    return any(one.severity.rank >= limit for one in audit.findings)


def audit_answer(
    audit: Audit,
    *,
    host: str,
    time: float,
    workloads: int,
    servers: int,
    daemon: bool,
    fail_on: str,
) -> AuditAnswer:
    """The published answer."""
    return AuditAnswer(
        version=AUDIT_VERSION,
        host=host,
        time=time,
        advisories=advisories().date.isoformat(),
        daemon=daemon,
        workloads=workloads,
        servers=servers,
        fail_on=fail_on,
        failed=has_failed(audit, fail_on),
        counts=Counts(**Counter(one.severity.value for one in audit.findings)),
        findings=audit.findings,
        accepted=audit.accepted,
        unchecked=audit.unchecked,
        problems=audit.problems,
    )


def sarif(answer: AuditAnswer, version: str) -> dict[str, object]:
    """The findings as one run of a SARIF log; accepted ones are suppressed."""
    shown = [*answer.findings, *answer.accepted]
    rules = {one.id: one for one in shown}
    positions = {name: position for position, name in enumerate(rules)}

    def result(one: Finding) -> dict[str, object]:
        return _result(one, answer.host, positions[one.id])

    return {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "vllmwall",
                        "version": version,
                        "rules": [_rule(one) for one in rules.values()],
                    }
                },
                "automationDetails": {"id": f"vllmwall-audit/{answer.host}"},
                "results": [
                    *(result(one) for one in answer.findings),
                    *({**result(one), "suppressions": _ACCEPTED} for one in answer.accepted),
                ],
            }
        ],
    }


def _rule(one: Finding) -> dict[str, object]:
    level, number = _LEVELS[one.severity]
    return {
        "id": one.id,
        "shortDescription": {"text": one.title},
        "fullDescription": {"text": one.why},
        "help": {"text": f"{one.remedy}\n\nSource: {one.source}"},
        "defaultConfiguration": {"level": level},
        "properties": {"security-severity": number, "tags": ["security"]},
    }


def _result(one: Finding, host: str, position: int) -> dict[str, object]:
    level, _ = _LEVELS[one.severity]
    name = f"{host}/{one.stack.value}/{one.workload}"
    return {
        "ruleId": one.id,
        "ruleIndex": position,
        "level": level,
        "message": {"text": f"{one.title}: {one.seen}. {one.remedy}"},
        "locations": [{"logicalLocations": [{"name": one.workload, "fullyQualifiedName": name}]}],
        "partialFingerprints": {"finding/v1": f"{one.id}:{name}"},
    }
