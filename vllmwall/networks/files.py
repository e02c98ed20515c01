"""Peers from files: one CIDR or address a line, ``#`` starts a comment.

Promises that a broken file does not make the peers wider: if a file has errors, its last version
without errors stays in force; if there is none, its good lines count. A file that cannot be
trusted adds nothing.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from vllmwall.cidr import NetworkTextError, distinct, parse_network
from vllmwall.linux.files import directory_complaint, read_trusted
from vllmwall.model import Network
from vllmwall.networks.sources import PeerSource

END = "# end"
"""The last line of a file that says that all networks above it are all that there are."""

_MOST_ERRORS = 5  # shown for one file
_SETTLE_SECONDS = 1.0  # a last line without a newline counts if it is the same after this time


def read_peer_files(
    patterns: Iterable[str], last: Mapping[str, PeerSource]
) -> tuple[PeerSource, ...]:
    """One source for every file that matches ``patterns``; ``last`` holds the last ones by name.

    A file that a wildcard no longer matches was removed on purpose and is no source any more; a
    missing file that is named in full is an error.
    """
    names = dict.fromkeys(name for pattern in patterns for name in _matches(pattern))
    return tuple(_read(name, last.get(name)) for name in names)


def _matches(pattern: str) -> list[str]:
    if not glob.has_magic(pattern):
        return [pattern]
    return [name for name in sorted(glob.glob(pattern)) if not Path(name).is_dir()]  # noqa: PTH207


def _read(name: str, last: PeerSource | None) -> PeerSource:
    text, errors = _content(Path(name))
    good, more = _networks(name, text)
    errors += more
    if errors:
        shown = errors[:_MOST_ERRORS]
        if len(errors) > len(shown):
            shown.append(f"and {len(errors) - len(shown)} more errors")
        if last is not None:
            return replace(last, error="; ".join((*shown, "what it said last still counts")))
        return PeerSource(name, "file", distinct(good), "; ".join(shown))
    is_complete = text.rstrip().rpartition("\n")[2].strip() == END
    return PeerSource(name, "file", distinct(good), is_complete=is_complete)


def _content(path: Path) -> tuple[str, list[str]]:
    """The text of a file, and the problems with it."""
    try:
        content = read_trusted(path)
        if _is_unfinished(path, content.text):
            time.sleep(_SETTLE_SECONDS)
            before, content = content, read_trusted(path)
            if content != before and _is_unfinished(path, content.text):
                return "", [f"{path} is being written: its last line has no end yet"]
    except UnicodeDecodeError:
        return "", [f"{path} is not UTF-8 text"]
    except OSError as error:
        return "", [f"{path} cannot be read: {error.strerror or error}"]
    complaint = content.complaint
    if complaint is not None:
        return "", [f"{path} {complaint}"]
    complaint = directory_complaint(path.parent)
    if complaint is not None:
        return "", [f"{path.parent} {complaint}"]
    return content.text, []


def _is_unfinished(path: Path, text: str) -> bool:
    """Somebody may be writing the last line: half of 10.0.0.0/24 is 10.0.0.0/2."""
    age = time.time() - path.stat().st_mtime
    return bool(text) and not text.endswith("\n") and 0 <= age < 2 * _SETTLE_SECONDS


def _networks(name: str, content: str) -> tuple[list[Network], list[str]]:
    """The networks of the good lines, and what is wrong with the others."""
    good: list[Network] = []
    errors = []
    for number, line in enumerate(content.splitlines(), start=1):
        text = line.partition("#")[0].strip()
        try:
            if text:
                good.append(parse_network(text))
        except NetworkTextError as error:
            errors.append(f"{name}:{number}: {error}")
    return good, errors
