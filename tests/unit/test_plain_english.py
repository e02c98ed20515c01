"""Texts are plain English: CONTRIBUTING has the rules, this file finds what a machine can find."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Each with a better word. Not words of nft(8), systemd or Kubernetes, and hard for many readers.
FORBIDDEN = {
    r"anew": "again, re-read, restart",
    r"(?<!kill-)whom|whoever|whomever": "name the person or program: a user, a host, the caller",
    r"mend(?:s|ed|ing)?": "fix, repair",
    r"knock(?:s|ed|ing)?": "try, probe, connect",
    r"(?<!-)(?:stands?|stood)(?![-_]in| for)": "is active, applied, present",
    r"shall": "must, may, will",
    r"lets? go|letting go": "release, close, forget",
    r"take(?:s|n)? along|took along": "include, copy",
    r"sees? to it": "make sure",
    r"by (?:itself|themselves) alone|for want of": "alone, without",
    r"tells? of": "report, list",
    r"no more\b(?! than)": "no longer",
    r"takes? (?:it|them|itself|themselves) (?:away|back)": "remove, roll back",
    r"throw-?away": "temporary",
    r"nobody knows": "unknown",
}
_RIDDLE = re.compile(r"(?:What|Who|Whose|Whom|Whether)\b")
# CONTRIBUTING shows bad examples beside good ones.
_EXAMPLES = re.compile(r"^\| instead of \|.*?\n\n", re.MULTILINE | re.DOTALL)
_TEXTS = ["*.md", "docs/**/*.md", "systemd/**/*", "packaging/**/*", "tests/bench/*.[pc]*"]
_NOT_OURS = {".json", ".txt", ".pyc"}  # Grafana's, pip's, Python's
_CODE = ["packaging/**/*.py", "tests/bench/*.py", "vllmwall/**/*.py"]
# The tests of these rooms; the others follow.
_ROOMS = ["config", "daemon", "decide", "enforce", "engine", "linux", "observe", "recognize"]
_CODE += [f"tests/{kind}/{room}/**/*.py" for kind in ("unit", "kernel") for room in _ROOMS]
_CODE += ["tests/scenario/*.py", "tests/system/*.py"]


def texts() -> list[Path]:
    """Every file that a person reads as prose, comments included."""
    found = {path for pattern in _TEXTS for path in ROOT.glob(pattern)}
    return sorted(one for one in found if one.is_file() and one.suffix not in _NOT_OURS)


def code() -> list[Path]:
    """Every module with a docstring."""
    return sorted(path for pattern in _CODE for path in ROOT.glob(pattern))


def name(path: Path) -> str:
    """How the path is called in a test's name."""
    return str(path.relative_to(ROOT))


def forbidden(text: str) -> Iterator[str]:
    """Line within the text, word, and a better one."""
    for word, better in FORBIDDEN.items():
        for one in re.finditer(rf"(?<![a-z])(?:{word})(?![a-z])", text, re.IGNORECASE):
            line = text.count("\n", 0, one.start())
            yield f"+{line}: {one.group()!r}; better: {better}"


@pytest.mark.parametrize("path", texts(), ids=name)
def test_no_forbidden_word(path: Path) -> None:
    """A word with a plainer one, in any text of the product."""
    assert [] == list(forbidden(_EXAMPLES.sub("", path.read_text())))


@pytest.mark.parametrize("path", code(), ids=name)
def test_no_forbidden_word_in_code(path: Path) -> None:
    """Nor in a comment, a docstring, a message or a name."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    found = [f"{token.start[0]}: {one}" for token in tokens for one in forbidden(token.string)]
    assert [] == found


@pytest.mark.parametrize("path", code(), ids=name)
def test_no_module_docstring_is_a_riddle(path: Path) -> None:
    """It is a noun phrase and a promise, and begins with neither What nor Who."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert not _RIDDLE.match(docstring), docstring.partition("\n")[0]
