"""A proof as JSON, and as a text that can be filed and checked. Pure."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Collection, Iterator
from typing import cast

from vllmwall.cidr import host_port
from vllmwall.inspect.prove.run import Finding
from vllmwall.inspect.prove.shape import ProvedNamespaceJson, ProveJson, TryJson, UntriedJson
from vllmwall.inspect.prove.verdicts import Outcome, Verdict

MARKS = {"as expected": "✓", "different": "✗", "unproven": "?", "gone": "-"}

LISTED = "nft -s list table inet vllmwall | sed '1s/ #.*//' | sha256sum"
"""What anybody can compare a ruleset's hash with, in its namespace."""

_WAYS = (
    ("connect", "a whole TCP handshake, then a reset"),
    ("syn", "the first packet of one only, so that no program notices"),
    ("datagram", "an empty datagram with a wrong checksum, which no program gets"),
)


def as_json(findings: Collection[Finding]) -> dict[str, object]:
    """The part of a `ProveJson` that the findings fill."""
    verdicts = [verdict for one in findings for verdict in one.verdicts]
    bad = {Outcome.DIFFERENT, Outcome.UNPROVEN}
    return {
        "as_expected": not any(one.outcome in bad for one in verdicts),
        "namespaces": [_namespace(one) for one in findings],
        "tries": [_try(one, verdict) for one in findings for verdict in one.verdicts],
        "untried": [each for one in findings for each in _untried(one)],
        "problems": [problem for one in findings for problem in one.problems],
    }


def summary(answer: ProveJson) -> str:
    """One line: whether it is as it must be."""
    counts = Counter(one["outcome"] for one in answer["tries"])
    if not answer["tries"]:
        return "Nothing to prove: no listener of a workload can be reached from outside"
    parts = [f"{number} {outcome}" for outcome, number in counts.items()]
    start = "All as expected" if answer["as_expected"] else "NOT as expected"
    tries = "try" if len(answer["tries"]) == 1 else "tries"
    return f"{start}: {len(answer['tries'])} {tries}, {', '.join(sorted(parts))}"


def report(answer: ProveJson) -> str:
    """The text for the file: everything that was seen, who signs it off, and its own sha256."""
    body = "\n".join(_lines(answer)) + "\n"
    digest = hashlib.sha256(body.encode()).hexdigest()
    return (
        f"{body}"
        f"sha256 of all lines above this one: {digest}\n"
        "to verify: head -n -2 THIS_FILE | sha256sum\n"
    )


def place(one: TryJson) -> str:
    """Where a try went: ``tcp 10.0.0.1:29500``."""
    return f"{one['proto']} {host_port(one['address'], one['port'])}"


def seen(one: TryJson) -> str:
    """What it met, and whose doing that was."""
    return f"{one['seen']}, {one['by']}" if one["by"] else one["seen"]


def _lines(answer: ProveJson) -> Iterator[str]:
    moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(answer["time"]))
    yield "vllmwall prove: report"
    yield ""
    yield summary(answer)
    yield ""
    yield f"time      {moment} ({answer['seconds']:.1f} s)"
    yield f"host      {answer['host']}"
    yield f"kernel    {answer['kernel']}"
    yield f"vllmwall  {answer['vllmwall']}, mode {answer['mode']}"
    yield f"run by    {answer['operator']}"
    for file in answer["config"]:
        yield f"config    sha256 {file['sha256'] or 'not readable'}  {file['file']}"
    for space in answer["namespaces"]:
        yield f"ruleset   sha256 {space['ruleset_sha256'] or 'no table stands'}  {space['name']}"
        yield from (f"          {line}" for line in space["surroundings"])
    yield f"          to compare: {LISTED}"
    yield ""
    for way, meaning in _WAYS:
        yield f"{way:<9} {meaning}"
    yield ""
    yield from (_line(one) for one in answer["tries"])
    for each in answer["untried"]:
        yield f"  not tried: {each['listener']} ({each['role']}, {each['workload']}):"
        yield f"    {each['reason']}"
    yield from (f"! {problem}" for problem in answer["problems"])
    yield ""
    yield "signed off by ______________________________  on ____________________"
    yield ""


def _line(one: TryJson) -> str:
    owner = f"{one['workload']} (pid {one['root_pid']})" if one["root_pid"] else "this node"
    return (
        f"{MARKS[one['outcome']]} {place(one)}, {one['role']} of {owner}, in {one['namespace']}:\n"
        f"    {one['source_kind']} {one['source']}, {one['way']}: "
        f"expected {one['expected']}, seen {seen(one)}"
    )


def _namespace(one: Finding) -> ProvedNamespaceJson:
    return {
        "inode": one.inode,
        "name": one.name,
        "ruleset_sha256": one.ruleset,
        "surroundings": list(one.surroundings),
    }


def _try(finding: Finding, verdict: Verdict) -> TryJson:
    tried = verdict.tried
    target, source = tried.target, tried.source
    return cast(
        "TryJson",
        {
            "namespace": finding.name,
            "workload": target.workload,
            "root_pid": target.root_pid,
            "role": target.role,
            "proto": target.proto.value,
            "bound": target.bound,
            "address": str(target.address),
            "port": target.port,
            "source": str(source.address),
            "source_kind": source.kind,
            "way": tried.way.value,
            "expected": tried.expected.value,
            "seen": verdict.seen,
            "by": verdict.by,
            "outcome": verdict.outcome.value,
        },
    )


def _untried(finding: Finding) -> Iterator[UntriedJson]:
    for one in finding.untried:
        yield {
            "namespace": finding.name,
            "listener": one.target,
            "role": one.role,
            "workload": one.workload,
            "reason": one.reason,
        }
