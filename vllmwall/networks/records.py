"""What a JSON file of our own must look like: the daemon reads a few small ones at its start.

By hand, since pydantic in the daemon would be a third of its memory. Every function raises
ValueError with what is wrong. Imports nothing of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite

Record = Mapping[str, object]


def parsed(text: str, *keys: str) -> Record:
    """The object that a file consists of; it has these keys and no others."""
    try:
        return record(json.loads(text), *keys)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def record(value: object, *keys: str) -> Record:
    """An object with these keys and no others."""
    if not isinstance(value, dict) or value.keys() != set(keys):
        raise ValueError(f"an object of {', '.join(keys)} is needed")
    return value


def records(value: object, *keys: str) -> list[Record]:
    """A list of such objects."""
    return [record(each, *keys) for each in _list(value)]


def texts(value: object) -> list[str]:
    """A list of texts."""
    return [text(each) for each in _list(value)]


def text(value: object) -> str:
    """A text that can be written again."""
    if not isinstance(value, str):
        raise ValueError("a text is needed")
    value.encode()  # UnicodeEncodeError is a ValueError
    return value


def moment(value: object) -> float:
    """Seconds since the epoch."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError("a number of seconds is needed")
    return value


def end(value: object) -> float | None:
    """Seconds since the epoch; None: never."""
    return None if value is None else moment(value)


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError("a list is needed")
    return value
