"""Applies every rule of the tables to every subject. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from fnmatch import fnmatchcase

from vllmwall.config.values import Acceptance
from vllmwall.inspect.audit.checks import CHECKS
from vllmwall.inspect.audit.rules import Cve, Rule, cves, knobs
from vllmwall.inspect.audit.types import (
    Audit,
    CheckResult,
    Finding,
    Match,
    Severity,
    Subject,
    Unchecked,
    Unclear,
)
from vllmwall.inspect.audit.versions import is_within
from vllmwall.model import Stack

_SERVED_BY = {Stack.VLLM: "vllm", Stack.SGLANG: "sglang", Stack.LMDEPLOY: "lmdeploy"}


def judge(
    subjects: Sequence[Subject],
    accepted: Sequence[Acceptance] = (),
    today: date = date.min,
) -> Audit:
    """All findings, worst first, and the checks that could not be made."""
    findings: dict[tuple[str, str, str], Finding] = {}
    unchecked: dict[tuple[str, str, str], Unchecked] = {}
    for subject in subjects:
        for one in _of(subject):
            if isinstance(one, Finding):
                findings.setdefault((one.id, one.workload, one.seen), one)
            else:
                unchecked.setdefault((one.id, one.workload, one.reason), one)
    ordered = sorted(findings.values(), key=lambda one: (-one.severity.rank, one.workload, one.id))
    taken = [one for one in ordered if any(_accepts(each, one, today) for each in accepted)]
    return Audit(
        findings=tuple(one for one in ordered if one not in taken),
        unchecked=tuple(sorted(unchecked.values(), key=lambda one: (one.workload, one.id))),
        accepted=tuple(taken),
        problems=tuple(_stale(accepted, today)),
    )


def _of(subject: Subject) -> Iterator[Finding | Unchecked]:
    for rule in knobs().finding:
        outcome = _apply(rule, subject)
        if isinstance(outcome, Match):
            yield _finding(rule, subject, _severity(rule, subject, outcome), outcome.what)
        elif isinstance(outcome, Unclear):
            yield Unchecked(rule.id, subject.workload, subject.pid, outcome.reason)
    yield from _vulnerabilities(subject)


def _apply(rule: Rule, subject: Subject) -> CheckResult:
    if rule.stacks and subject.stack not in rule.stacks:
        return None
    if not subject.part and (rule.stacks or rule.flags):
        return Unclear("its server process could not be identified")
    if rule.since or rule.before:
        version = subject.versions.get(_SERVED_BY.get(subject.stack, ""), "")
        if is_within(version, since=rule.since, before=rule.before) is False:
            return None
    if rule.exposed and not subject.exposed_api:
        return None
    return CHECKS[rule.check](rule, subject)


def _finding(one: Rule | Cve, subject: Subject, severity: Severity, seen: str) -> Finding:
    return Finding(
        id=one.id,
        severity=severity,
        workload=subject.workload,
        stack=subject.stack,
        pid=subject.pid,
        title=one.title,
        seen=seen,
        why=one.why,
        remedy=one.remedy,
        source=one.source,
    )


def _severity(rule: Rule, subject: Subject, seen: Match) -> Severity:
    """The rule's severity, or the lower one where our rules block strangers from every place."""
    places = seen.places or (subject.exposed_api if rule.exposed else ())
    is_walled = bool(places) and all(place.walled for place in places)
    severity = (rule.walled if is_walled else None) or rule.severity
    return min(severity, seen.at_most, key=lambda one: one.rank)


def _vulnerabilities(subject: Subject) -> Iterator[Finding]:
    for cve in cves():
        version = subject.versions.get(cve.package)
        if version is not None and _is_affected(cve, version, subject):
            seen = f"{cve.package} {version} is installed{_beside(cve, subject)}"
            yield _finding(cve, subject, cve.severity, seen)


def _is_affected(cve: Cve, version: str, subject: Subject) -> bool:
    """Whether it applies. Flags and variables that cannot be read count as set."""
    if not is_within(version, since=cve.since, before=cve.before, through=cve.through):
        return False
    if cve.beside is not None:
        other = subject.versions.get(cve.beside.package, "")
        if is_within(other, before=cve.beside.before) is False:
            return False
    if not cve.flags and not cve.variables:
        return True
    flags, values = subject.command.flags, subject.environment.values
    if any(flags.text(name) is not None or flags.object(name) for name in cve.flags):
        return True
    if any(values.get(name) for name in cve.variables):
        return True
    hidden = not subject.command.complete if cve.flags else False
    return hidden or (bool(cve.variables) and not subject.environment.complete)


def _beside(cve: Cve, subject: Subject) -> str:
    if cve.beside is None:
        return ""
    other = cve.beside.package
    return f", with {other} {subject.versions.get(other, '(unknown version)')}"


def _accepts(acceptance: Acceptance, finding: Finding, today: date) -> bool:
    return (
        acceptance.counts_on(today)
        and fnmatchcase(finding.id, acceptance.finding)
        and fnmatchcase(finding.workload, acceptance.workload)
    )


def _stale(accepted: Iterable[Acceptance], today: date) -> Iterator[str]:
    ids = [*(rule.id for rule in knobs().finding), *(cve.id for cve in cves())]
    for one in accepted:
        if not any(fnmatchcase(each, one.finding) for each in ids):
            yield f"audit.accepted: {one.finding} is not the id of a finding"
        elif not one.counts_on(today):
            yield f"audit.accepted: {one} has ended"
