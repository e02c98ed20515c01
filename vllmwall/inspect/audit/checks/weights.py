"""Checks of what is served: which model, from where, and who may change it."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from vllmwall.inspect.audit.checks.switches import shown, unclear
from vllmwall.inspect.audit.rules import Rule
from vllmwall.inspect.audit.types import CheckResult, Match, Subject, Unclear

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHOWN = 3


def allowed_model(rule: Rule, subject: Subject) -> CheckResult:
    """The served model matches none of the patterns."""
    if not subject.allowed_models or not _serves(subject):
        return None
    if not subject.model:
        return Unclear("its model is unknown")
    if any(fnmatchcase(subject.model, pattern) for pattern in subject.allowed_models):
        return None
    return Match(f"{shown(subject.model)} is served")


def checksum(rule: Rule, subject: Subject) -> CheckResult:
    """Files that differ from the checksum file."""
    wrong = subject.weights.wrong if subject.weights else None
    return Match(_some(wrong)) if wrong else None


def writable(rule: Rule, subject: Subject) -> CheckResult:
    """Files that users other than the server's owner may write."""
    files = subject.weights.writable if subject.weights else ()
    return Match(f"others may write {_some(files)}") if files else None


def pickle(rule: Rule, subject: Subject) -> CheckResult:
    """Pickled files, and no safetensors beside them that would be preferred."""
    weights = subject.weights
    if weights is None or not weights.pickles:
        return None
    if subject.command.flags.text("load-format") in ("pt", "auto", None):
        is_chosen = subject.command.flags.text("load-format") == "pt"
        return Match(_some(weights.pickles)) if is_chosen or not weights.safetensors else None
    return None


def unpinned(rule: Rule, subject: Subject) -> CheckResult:
    """A name on a hub, without a commit, while the hub is asked."""
    if not subject.model or subject.model.startswith(("/", ".", "~")) or subject.part == "proxy":
        return None
    if subject.weights is not None and subject.weights.directory == subject.model:
        return None
    revision = subject.command.flags.text("revision") or ""
    offline = subject.environment.values.get("HF_HUB_OFFLINE", "").lower()
    if _COMMIT.fullmatch(revision) or offline in ("1", "true", "yes", "on"):
        return None
    what = f"{shown(subject.model)} without a commit in --revision"
    return unclear(rule, subject) or Match(what)


def _serves(subject: Subject) -> bool:
    return bool(subject.part) and subject.part not in ("proxy", "router", "preload")


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
