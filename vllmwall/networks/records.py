"""JSON files of our own: each is one frozen dataclass, read strictly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vllmwall.linux.files import read_trusted
from vllmwall.linux.wire import Fit, decode, encode

VERSION = 1

Result = TypeVar("Result")
_FileT = TypeVar("_FileT", bound="VersionedFile")


@dataclass(frozen=True, kw_only=True)
class VersionedFile:
    """What all of these files begin with."""

    version: int = VERSION


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


def parsed(kind: type[_FileT], text: str) -> _FileT:
    """The file that a text holds. Raises ValueError where it is not as `text_of` writes it."""
    try:
        value = json.loads(text)
        _text(value)  # NaN, and half a character, could not be written again
        found = decode(kind, value, Fit.WHOLE)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if found.version != VERSION:
        raise ValueError(f"version {found.version}, and this vllmwall writes {VERSION}")
    return found


def text_of(file: VersionedFile) -> str:
    """The text of a file."""
    return _text(encode(file)) + "\n"


def _text(value: object) -> str:
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    text.encode()  # UnicodeEncodeError is a ValueError
    return text
