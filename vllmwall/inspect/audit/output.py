"""An audit as values for machines: the published JSON, and SARIF 2.1.0. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vllmwall.inspect.audit.shape import AUDIT_VERSION, AuditJson, CountsJson, FindingJson
from vllmwall.inspect.audit.types import Audit, Finding, Severity

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
    """A finding is as bad as ``fail_on`` (a severity, or ``never``) or worse."""
    if fail_on == "never":
        return False
    limit = Severity[fail_on.upper()]
    return any(one.severity >= limit for one in audit.findings)


def audit_json(
    audit: Audit,
    *,
    host: str,
    time: float,
    workloads: int,
    servers: int,
    daemon: bool,
    fail_on: str,
) -> AuditJson:
    """The answer in the published shape."""
    return {
        "version": AUDIT_VERSION,
        "host": host,
        "time": time,
        "daemon": daemon,
        "workloads": workloads,
        "servers": servers,
        "fail_on": fail_on,
        "failed": has_failed(audit, fail_on),
        "counts": _counts(audit.findings),
        "findings": [_finding(one) for one in audit.findings],
        "accepted": [_finding(one) for one in audit.accepted],
        "unchecked": [
            {"id": one.id, "workload": one.workload, "pid": one.pid, "reason": one.reason}
            for one in audit.unknown
        ],
        "problems": list(audit.problems),
    }


def _counts(findings: Iterable[Finding]) -> CountsJson:
    counts: CountsJson = {"critical": 0, "high": 0, "medium": 0, "low": 0, "info": 0}
    for one in findings:
        counts[one.severity.word] += 1
    return counts


def _finding(one: Finding) -> FindingJson:
    return {
        "id": one.id,
        "severity": one.severity.word,
        "workload": one.workload,
        "stack": one.stack.value,
        "pid": one.pid,
        "title": one.title,
        "seen": one.seen,
        "why": one.why,
        "remedy": one.remedy,
        "source": one.source,
    }


def sarif(answer: AuditJson, version: str) -> dict[str, object]:
    """The findings as one run of a SARIF log; accepted ones are there as suppressed."""
    shown = [*answer["findings"], *answer["accepted"]]
    rules = {one["id"]: one for one in shown}
    positions = {name: position for position, name in enumerate(rules)}

    def result(one: FindingJson) -> dict[str, object]:
        return _result(one, answer["host"], positions[one["id"]])

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
                "automationDetails": {"id": f"vllmwall-audit/{answer['host']}"},
                "results": [
                    *(result(one) for one in answer["findings"]),
                    *({**result(one), "suppressions": _ACCEPTED} for one in answer["accepted"]),
                ],
            }
        ],
    }


def _rule(one: FindingJson) -> dict[str, object]:
    level, number = _LEVELS[Severity[one["severity"].upper()]]
    return {
        "id": one["id"],
        "shortDescription": {"text": one["title"]},
        "fullDescription": {"text": one["why"]},
        "help": {"text": f"{one['remedy']}\n\nSource: {one['source']}"},
        "defaultConfiguration": {"level": level},
        "properties": {"security-severity": number, "tags": ["security"]},
    }


def _result(one: FindingJson, host: str, position: int) -> dict[str, object]:
    level, _ = _LEVELS[Severity[one["severity"].upper()]]
    name = f"{host}/{one['stack']}/{one['workload']}"
    return {
        "ruleId": one["id"],
        "ruleIndex": position,
        "level": level,
        "message": {"text": f"{one['title']}: {one['seen']}. {one['remedy']}"},
        "locations": [
            {"logicalLocations": [{"name": one["workload"], "fullyQualifiedName": name}]}
        ],
        "partialFingerprints": {"finding/v1": f"{one['id']}:{name}"},
    }
