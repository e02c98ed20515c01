"""JSON files of our own, checked key by key.

By hand, because pydantic in the daemon would be a third of its memory. The functions that check
raise ValueError, which says what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import TypeVar

from vllmwall.linux.files import read_trusted

Record = Mapping[str, object]
Result = TypeVar("Result")


def load(path: Path, parse: Callable[[str], Result]) -> tuple[Result | None, str]:
    """The content of a file of ours, or None and the problem with it.

    A file that is damaged, or that another user could have written, is moved aside, so that the
    next start has no problem with it. ``parse`` raises ValueError. Raises FileNotFoundError.
    """
    try:
        content = read_trusted(path)
        if content.complaint is None:
            return parse(content.text), ""
        complaint = content.complaint
    except FileNotFoundError:
        raise
    except ValueError as error:
        complaint = f"is damaged ({error})"
    except OSError as error:
        return None, f"{path} cannot be read: {error.strerror or error}"
    return None, _moved_aside(path, complaint)


def _moved_aside(path: Path, complaint: str) -> str:
    kept = path.with_name(f"{path.name}.bad")
    try:
        path.replace(kept)
    except OSError as error:
        return f"{path} {complaint}, and cannot be moved aside: {error.strerror}"
    return f"{path} {complaint}; moved to {kept}"


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
