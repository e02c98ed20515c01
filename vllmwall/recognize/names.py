"""Short names of workloads for people. A name never contains a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PLAIN = re.compile(r"[A-Za-z0-9_][\w.+-]{0,63}")


def short_name(text: str, fallback: str) -> str:
    """The last part of a path or model name; ``fallback`` when that is not a plain word.

    Credentials in URLs precede an ``@`` or follow a ``?`` or ``=``: such a part is not a plain word
    and is omitted.
    """
    last = text.rstrip("/").rpartition("/")[2]
    return last if _PLAIN.fullmatch(last) else fallback


def script_name(words: Iterable[str], fallback: str) -> str:
    """The base name of the first Python file among the words."""
    return next((short_name(word, fallback) for word in words if word.endswith(".py")), fallback)
