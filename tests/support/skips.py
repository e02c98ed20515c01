"""The skips that a run may have: tests/allowed_skips.txt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

_LIST = Path(__file__).parents[1] / "allowed_skips.txt"


def unlisted(reports: Iterable[pytest.TestReport]) -> Counter[str]:
    """How often a test was skipped for a reason that is not listed, by ``path: reason``."""
    allowed = [re.compile(one) for one in _patterns(_LIST.read_text())]
    skips = Counter(_line(report) for report in reports)
    return Counter(
        {
            line: count
            for line, count in skips.items()
            if not any(p.fullmatch(line) for p in allowed)
        }
    )


def _patterns(text: str) -> list[str]:
    """The patterns of the list. Raises ValueError for one that has no reason."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    parts = [line.partition("  # ") for line in lines]
    if bare := [pattern for pattern, _, reason in parts if not reason.strip()]:
        raise ValueError(f"{_LIST.name}: no reason is given for {bare}")
    return [pattern for pattern, _, _ in parts]


def _line(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return f"{report.nodeid.partition('::')[0]}: {reason.removeprefix('Skipped: ')}"
