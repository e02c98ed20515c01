"""Versions of Python packages, compared as far as ranges of vulnerabilities need it (PEP 440).

Local parts (``+cu129``) are ignored. A text that is not a version compares with none.
"""

from __future__ import annotations

import re

_VERSION = re.compile(
    r"v?(\d+(?:\.\d+)*)(?:[-_.]?(a|b|rc|alpha|beta|c|pre)[-_.]?(\d*))?"
    r"(?:[-_.]?post[-_.]?(\d*))?(?:[-_.]?dev[-_.]?(\d*))?(?:\+.*)?",
    re.IGNORECASE,
)
_LENGTH = 5
_FINAL = 3

Version = tuple[int, ...]


def parse(text: str) -> Version | None:
    """A key that sorts as versions do; None: not a version."""
    match = _VERSION.fullmatch(text.strip())
    if match is None:
        return None
    numbers = [int(part) for part in match.group(1).split(".")][:_LENGTH]
    release = (*numbers, *(0 for _ in range(_LENGTH - len(numbers))))
    stage = match.group(2)
    before = {"a": 0, "b": 1}.get(stage[0].lower(), 2) if stage else _FINAL
    post, dev = match.group(4), match.group(5)
    if stage is None and post is None and dev is not None:
        before = -1  # 1.0.dev1 comes before 1.0a1
    return (
        *release,
        before,
        int(match.group(3) or 0),
        -1 if post is None else int(post or 0),
        0 if dev is not None else 1,
        int(dev or 0),
    )


def is_within(version: str, *, since: str = "", before: str = "", through: str = "") -> bool | None:
    """Whether a version is in the range; empty ends are open. None: not a version.

    ``through`` excludes post releases (``0.5.5.post1`` is beyond 0.5.5).
    """
    found = parse(version)
    if found is None:
        return None
    if since and found < _known(since):
        return False
    if before and found >= _known(before):
        return False
    return not (through and found > _known(through))


def _known(text: str) -> Version:
    found = parse(text)
    if found is None:
        raise ValueError(f"{text} is not a version")
    return found
