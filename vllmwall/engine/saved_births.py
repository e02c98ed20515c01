"""Facts of births on disk, so that the next daemon gives the answer that this one gives.

A file of lines, each with a checksum: the first names the version and the boot, every other one is
a fact; a later one of the same process replaces an earlier one. Lines are appended when facts are
learned; a file that has grown is replaced in one step. So kill -9 costs the last line at most.
Each user has a share of the file.
"""

from __future__ import annotations

import json
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.log import Logger
from vllmwall.linux.files import append_to_file, read_trusted, replace_file
from vllmwall.linux.wire import Fit, decode, encode
from vllmwall.observe import Observer
from vllmwall.observe.births import Asked, Birth
from vllmwall.observe.shares import Account, Shares

FILE_NAME = "births"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_KINDS: dict[str, type[Birth] | type[Asked]] = {"process": Birth, "listener": Asked}
_EACH, _TOGETHER = 512 * 1024, 8 * 1024 * 1024  # bytes; root has no limit, as everywhere
_SLACK = 64 * 1024  # bytes of lines that have no use any more
_TURN_SECONDS = 0.001  # of writing, then the loop looks at events
_REST = 10  # times as long
_FAILED_SECONDS = 5.0  # a full disk
_FINISH_SECONDS = 0.5

_Fact = Birth | Asked
_Key = tuple[int, ...]


@dataclass(frozen=True)
class _Stored:
    """A fact as last seen, whose share its line uses, and the line."""

    fact: _Fact | None
    account: Account
    line: bytes


_NOTHING = _Stored(None, None, b"")


class SavedBirths:
    """What ``observer`` learned, written into a file in ``folder``, a little at a time. At first it
    recalls what is there; a file that cannot be read is one line in the log, and no facts."""

    def __init__(self, folder: Path, observer: Observer, log: Logger) -> None:
        self._file, self._observer = folder / FILE_NAME, observer
        self._shares = Shares(_EACH, _TOGETHER)
        self._waiting: list[tuple[Account, _Fact]] = []
        self._stored: dict[_Key, _Stored] = {}
        self._used = 0  # bytes of the lines in use
        self._size: int | None = None  # of the file; None: it has to be replaced
        self._kept, self._next = 0, 0.0
        recalled: Mapping[_Key, _Fact] = {}
        try:
            recalled = self._read()
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            log(EventKey.BIRTHS_UNREADABLE, file=str(self._file), error=str(error))
        facts = recalled.values()
        observer.recall(
            [one for one in facts if isinstance(one, Birth)],
            [one for one in facts if isinstance(one, Asked)],
        )

    @property
    def deadline(self) -> float | None:
        """When `advance` has something to do."""
        return self._next if self._waiting or self._kept != self._observer.kept else None

    def advance(self) -> None:
        """Write some of what is new, if it is time. A full disk costs what it cannot hold only."""
        begun = time.monotonic()
        if self.deadline is None or begun < self._next:
            return
        if not self._waiting:
            self._kept = self._observer.kept
            self._waiting = self._news()
        try:
            self._write(b"".join(self._lines(begun + _TURN_SECONDS)))
            self._next = time.monotonic() + _REST * (time.monotonic() - begun)
        except OSError:
            self._size, self._kept = None, -1
            self._next = begun + _FAILED_SECONDS

    def finish(self) -> None:
        """Write what is left, as far as half a second allows."""
        ends = time.monotonic() + _FINISH_SECONDS
        while self.deadline is not None and time.monotonic() < ends:
            self._next = 0.0
            self.advance()

    def _read(self) -> Mapping[_Key, _Fact]:
        """The facts in the file; none of another boot or version. Raises OSError and ValueError."""
        content = read_trusted(self._file)
        if content.complaint is not None:
            raise ValueError(content.complaint)
        *lines, torn = content.text.split("\n")
        found = [_checked(line) for line in lines]
        if found[:1] != [_head()]:
            return {}
        facts = [decode(_KINDS[kind], fields, Fit.WHOLE) for kind, fields in found[1:]]
        for fact, line in zip(facts, lines[1:], strict=True):
            self._drop(fact.key)
            self._stored[fact.key] = stored = _Stored(None, None, f"{line}\n".encode())
            self._used += len(stored.line)
        self._size = None if torn else len(content.text.encode())
        return {fact.key: fact for fact in facts}

    def _news(self) -> list[tuple[Account, _Fact]]:
        """What is not in the file yet, the first of each user last; what ended is forgotten."""
        found = list(self._observer.births())
        for key in self._stored.keys() - {fact.key for _, fact in found}:
            self._drop(key)
        self._shares.over.clear()
        places, news = Counter[Account](), []
        for account, fact in found:
            stored = self._stored.get(fact.key)
            if stored is None or stored.fact != fact:
                places[account] += 1
                news.append((places[account], account, fact))
        news.sort(key=lambda one: -one[0])
        return [(account, fact) for _, account, fact in news]

    def _lines(self, until: float) -> Iterator[bytes]:
        """Lines for the file, as many as there is time for."""
        while self._waiting and time.monotonic() < until:
            account, fact = self._waiting.pop()
            before = self._drop(fact.key)
            line = b"" if account in self._shares.over else _line(fact)
            if line and self._shares.take(account, len(line)):
                self._stored[fact.key] = _Stored(fact, account, line)
                self._used += len(line)
                if line != before:
                    yield line

    def _drop(self, key: _Key) -> bytes:
        """Forget a line; which one it was."""
        before = self._stored.pop(key, _NOTHING)
        self._shares.give_back(before.account, len(before.line))
        self._used -= len(before.line)
        return before.line

    def _write(self, lines: bytes) -> None:
        if self._size is None or 2 * (self._size + len(lines) - _SLACK) > 3 * self._used:
            text = _checksummed(*_head()) + b"".join(one.line for one in self._stored.values())
            replace_file(self._file, text, 0o600, durable=False)
            self._size = len(text)
        elif lines:
            append_to_file(self._file, lines)
            self._size += len(lines)


def _head() -> tuple[str, object]:
    return "vllmwall-births", {"version": 1, "boot": _BOOT.read_text().strip()}


def _line(fact: _Fact) -> bytes:
    kind = next(name for name, kind in _KINDS.items() if isinstance(fact, kind))
    return _checksummed(kind, encode(fact.without_secrets()))


def _checksummed(kind: str, value: object) -> bytes:
    text = f"{kind} {json.dumps(value)}".encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _checked(line: str) -> tuple[str, object]:
    """The kind and the content of a line. Raises ValueError where it is not as it was written."""
    checksum, _, text = line.partition(" ")
    if checksum != f"{zlib.crc32(text.encode()):08x}":
        raise ValueError("a line of it was altered")
    kind, _, content = text.partition(" ")
    return kind, json.loads(content)
