"""Commits of nf_tables rules: when one became active, its author and the ports that it closed.

Source: nf_tables' own notifications, timed by watch.c. A transaction announces its elements and
then its generation, with the pid and the name of the process (linux/netfilter/nf_tables.h).
"""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

from tests.bench.programs import built
from tests.support.lab import Host

READY = b"ready\n"
_RECORD = struct.Struct("=qI")
_MESSAGE = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_GENERIC = 4  # struct nfgenmsg
_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_NEW_ELEMENTS, _NEW_GENERATION = _SUBSYSTEM | 12, _SUBSYSTEM | 15
_SET, _ELEMENTS = 2, 3  # NFTA_SET_ELEM_LIST_*
_ELEMENT, _KEY, _DATA = 1, 1, 1  # NFTA_LIST_ELEM, NFTA_SET_ELEM_KEY, NFTA_DATA_VALUE
_PID, _NAME = 2, 3  # NFTA_GEN_PROC_*
_NESTED = 0x3FFF  # NLA_TYPE_MASK


@dataclass(frozen=True)
class Commit:
    """One transaction: active since ``at`` (ns, CLOCK_MONOTONIC), made by thread ``pid``.

    ``closed`` are the ports that it added to our table's walled sets.
    """

    at: int
    pid: int
    name: str
    closed: frozenset[int]


class Reader:
    """Decoder of the bytes that watch.c writes, in pieces of any length. Pure."""

    def __init__(self) -> None:
        self._rest = b""
        self._closed: set[int] = set()

    def feed(self, data: bytes) -> Iterator[Commit]:
        """The commits that ``data`` completes."""
        self._rest += data
        while len(self._rest) >= _RECORD.size:
            at, length = _RECORD.unpack_from(self._rest)
            end = _RECORD.size + length
            if len(self._rest) < end:
                return
            record, self._rest = self._rest[_RECORD.size : end], self._rest[end:]
            yield from self._commits(at, record)

    def _commits(self, at: int, data: bytes) -> Iterator[Commit]:
        for kind, body in _messages(data):
            fields = dict(_attributes(body[_GENERIC:]))
            if kind == _NEW_ELEMENTS and fields.get(_SET, b"").startswith(b"walled_"):
                self._closed.update(_ports(fields.get(_ELEMENTS, b"")))
            elif kind == _NEW_GENERATION:
                pid = int.from_bytes(fields.get(_PID, b""), "big")
                name = fields.get(_NAME, b"").rstrip(b"\0").decode(errors="replace")
                yield Commit(at, pid, name, frozenset(self._closed))
                self._closed.clear()


class Watch:
    """The stream of commits in a host's network namespace. A context manager."""

    def __init__(self, host: Host) -> None:
        self._process = subprocess.Popen(
            host.command([str(built("watch"))]), stdout=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout.fileno()
        self._reader = Reader()
        self._waiting: list[Commit] = []
        assert READY == os.read(self._pipe, len(READY)), "watch did not start"

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def until(self, wanted: Callable[[Commit], bool], seconds: float) -> Commit | None:
        """The next wanted commit, or None within ``seconds``. Other commits are skipped."""
        deadline = time.monotonic() + seconds
        while True:
            while self._waiting:
                if wanted(one := self._waiting.pop(0)):
                    return one
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._pipe], [], [], left)[0]:
                return None
            self._waiting += self._reader.feed(os.read(self._pipe, 1 << 16))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + _MESSAGE.size <= len(data):
        length, kind, _, _, _ = _MESSAGE.unpack_from(data, position)
        if length < _MESSAGE.size:
            return
        yield kind, data[position + _MESSAGE.size : position + length]
        position += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _NESTED, data[position + _ATTRIBUTE.size : position + length]
        position += (length + 3) & ~3


def _ports(elements: bytes) -> Iterator[int]:
    """The ports in set elements: a key ends in protocol and port, four bytes each."""
    for kind, element in _attributes(elements):
        for inner, key in _attributes(element):
            if kind == _ELEMENT and inner == _KEY:
                value = dict(_attributes(key)).get(_DATA, b"")
                yield int.from_bytes(value[-4:-2], "big")
