"""Checks that only ask whether a flag or a variable says something.

A thing is absent only where both the command line and the environment could be read whole;
else the answer is `Unclear`.
"""

from __future__ import annotations

from collections.abc import Iterator

from vllmwall.inspect.audit.rules import Rule
from vllmwall.inspect.audit.types import (
    SET,
    CheckResult,
    Environment,
    Match,
    Subject,
    Unclear,
)

_OFF = frozenset({"", "0", "false", "no", "off", "none", "null"})
HIDDEN_ARGUMENTS = "the command line cannot be read whole (the process renamed itself)"
HIDDEN_VARIABLES = "the environment cannot be read whole (the process renamed itself)"
_SHOWN = 60


def is_on(rule: Rule, subject: Subject) -> CheckResult:
    """One of the flags or variables is switched on."""
    found = [f"--{name} is given" for name in rule.flags if subject.command.flags.is_on(name)]
    found += [f"{name} is on" for name in rule.variables if is_set(subject.environment, name)]
    return Match(", ".join(found)) if found else unclear(rule, subject)


def is_set(environment: Environment, name: str) -> bool:
    """The variable is there and is no word for off."""
    return not _is_off(environment.values.get(name, ""))


def is_given(rule: Rule, subject: Subject) -> CheckResult:
    """One of the flags or variables has a value."""
    found = list(given(rule, subject))
    return Match(", ".join(found)) if found else unclear(rule, subject)


def is_absent(rule: Rule, subject: Subject) -> CheckResult:
    """None of the flags and variables has a value."""
    if list(given(rule, subject)):
        return None
    names = [*(f"--{name}" for name in rule.flags), *rule.variables]
    return unclear(rule, subject) or Match(
        f"neither {' nor '.join(names)}" if len(names) > 1 else f"no {names[0]}"
    )


def given(rule: Rule, subject: Subject) -> Iterator[str]:
    """The flags and variables that have a value, in words without the value."""
    for name in rule.flags:
        text = subject.command.flags.text(name)
        dotted = subject.command.flags.object(name) if text is None else {}
        if dotted or (text is not None and (text == "" or not _is_off(text))):
            yield f"--{name} is given"
    for name in rule.variables:
        if subject.environment.values.get(name, "") not in ("", None):
            yield f"{name} is set"


def unclear(rule: Rule, subject: Subject) -> Unclear | None:
    """Why nothing can be said of what is not there; None: it is really not there."""
    if rule.flags and not subject.command.complete:
        return Unclear(HIDDEN_ARGUMENTS)
    if rule.variables and not subject.environment.complete:
        return Unclear(HIDDEN_VARIABLES)
    return None


def shown(value: str) -> str:
    """A value that is no secret, short."""
    if value == SET:
        return "set"
    return value if len(value) <= _SHOWN else value[: _SHOWN - 1] + "…"


def _is_off(value: str) -> bool:
    return value.strip().lower() in _OFF
