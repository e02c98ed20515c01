"""How a test run ends: its exit status, and the skips that it accepts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import suites
from tests.support import skips
from tests.support.skips import unlisted

NO_TESTS = 5


@pytest.mark.parametrize(
    ("parallel", "serial", "whole"),
    [
        (0, 0, 0),
        (1, 0, 1),
        (0, 1, 1),
        (0, 2, 2),
        (0, NO_TESTS, 0),
        (NO_TESTS, 0, 0),
        (NO_TESTS, NO_TESTS, NO_TESTS),
    ],
)
def test_both_runs_must_pass(
    monkeypatch: pytest.MonkeyPatch, parallel: int, serial: int, whole: int
) -> None:
    """A run without tests is no failure; two of them are."""
    statuses = {"parallel": parallel, "serial": serial}
    monkeypatch.setattr(suites, "run", lambda name, *_: (statuses[name], "1 passed"))
    monkeypatch.setattr(suites, "again", lambda *_: (parallel, "as before"))
    assert whole == suites.main("fast")


@pytest.mark.parametrize(
    ("failed", "alone", "whole"), [(1, 0, 0), (10, 0, 0), (11, 0, 1), (0, 0, 1), (1, 1, 1)]
)
def test_a_few_that_failed_beside_others_may_pass_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failed: int, alone: int, whole: int
) -> None:
    """Many, or a run that failed without a test (a skip), are not run again."""
    (tmp_path / "lastfailed").write_text(json.dumps({f"test_{n}": True for n in range(failed)}))
    monkeypatch.setattr(suites, "_LAST_FAILED", tmp_path / "lastfailed")
    statuses = {"parallel": 1, "failed": alone, "serial": 0}
    monkeypatch.setattr(suites, "run", lambda name, *_: (statuses[name], "1 passed"))
    assert whole == suites.main("fast")


def test_every_test_is_in_one_run_of_the_whole_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left out of `all`."""
    marks: list[str] = []
    monkeypatch.setattr(suites, "run", lambda _, mark, __: (marks.append(mark) or 0, ""))
    suites.main("all")
    assert ["not serial", "serial"] == marks


def skipped(path: str, reason: str) -> pytest.TestReport:
    where = f"{path}::test_it"
    longrepr = (path, 1, f"Skipped: {reason}")
    return pytest.TestReport(where, (path, 1, "test_it"), {}, "skipped", longrepr, "setup")


def test_a_skip_that_is_not_listed_is_counted() -> None:
    """By its path and reason."""
    kubectl = skipped("tests/unit/packaging/test_kubernetes_manifests.py", "no kubectl: fetch it")
    other = skipped("tests/unit/test_a.py", "no moon")
    assert {"tests/unit/test_a.py: no moon": 2} == unlisted([kubectl, other, other])


def test_a_listed_skip_has_a_reason() -> None:
    """Else the list would only grow."""
    with pytest.raises(ValueError, match=r"no reason is given for \['tests/a.py: .*'\]"):
        skips._patterns("# a comment\ntests/a.py: .*\n")
