"""``python -m vllmwall.inspect.audit.docs``: the reference page of findings, from the tables."""

from __future__ import annotations

from collections.abc import Iterator

from vllmwall.inspect.audit.rules import Cve, Rule, cves, knobs

_HEAD = """\
# Findings of `vllmwall audit`

<!-- Written by `make docs`; edit vllmwall/inspect/audit/{knobs,cves}.toml instead. -->

Sorted by severity. A second severity in brackets applies while a rule of vllmwall closes the port
to untrusted hosts. Data that could not be read never causes a finding: such checks are counted as
not made.
"""
_ORDER = ("critical", "high", "medium", "low", "info")


def markdown() -> str:
    """The page docs/reference/findings.md."""
    rules = sorted(knobs().finding, key=lambda one: (_ORDER.index(one.severity), one.id))
    lines = [*_HEAD.splitlines(), ""]
    for rule in rules:
        lines += _finding(rule)
    lines += ["## Known vulnerabilities", "", "Found by the versions of installed packages.", ""]
    lines += [
        "| id | package | versions | severity | what | only with |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(one) for one in cves()]
    return "\n".join(lines) + "\n"


def _finding(rule: Rule) -> Iterator[str]:
    walled = f" ({rule.walled})" if rule.walled else ""
    yield f"## `{rule.id}`"
    yield ""
    yield f"{rule.title}. **{rule.severity}**{walled}, {_scope(rule)}."
    yield ""
    yield rule.why
    yield ""
    yield f"To do: {rule.remedy}"
    yield ""
    yield f"Source: {rule.source}."
    yield ""


def _scope(rule: Rule) -> str:
    stacks = ", ".join(one.value for one in rule.stacks) or "any workload"
    since = f" from {rule.since} on" if rule.since else ""
    before = f" before {rule.before}" if rule.before else ""
    exposed = ", where other hosts can reach the API" if rule.exposed else ""
    return stacks + since + before + exposed


def _row(one: Cve) -> str:
    link = f"[{one.id}](https://www.cve.org/CVERecord?id={one.id})"
    versions = " ".join(
        f"{word} {text}"
        for word, text in (("from", one.since), ("before", one.before), ("through", one.through))
        if text
    )
    needs = [f"`--{flag}`" for flag in one.flags] + [f"`{name}`" for name in one.variables]
    words = " or ".join(needs)
    if one.beside:
        words += f" and {one.beside.package} before {one.beside.before}"
    return f"| {link} | {one.package} | {versions} | {one.severity} | {one.title} | {words} |"


if __name__ == "__main__":
    print(markdown(), end="")
