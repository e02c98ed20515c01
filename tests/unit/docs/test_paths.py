"""Files that the documentation names exist, so a move in the code does not leave it behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.documents import ROOT, pages

_PATH = re.compile(r"\b(?:vllmwall|tests|packaging|systemd|docs)/[\w@./-]*\w/?")
_NAMED_ELSEWHERE = re.compile(
    r"(?:/etc|/run|/lib|/opt|/bin|/doc|/cache|/srv|unix:|example\.com)[\w./@:-]*"
)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    """Paths below vllmwall/, tests/, packaging/, systemd/ and docs/ are real ones."""
    text = _NAMED_ELSEWHERE.sub("", page.read_text())
    missing = {one for one in _PATH.findall(text) if not (ROOT / one.rstrip(".")).exists()}
    assert set() == missing
