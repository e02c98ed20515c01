"""Records of the kernel's trace buffer, as ``trace_pipe_raw`` has them.

Each record lies where the kernel's own lengths say. So no name, whatever bytes it has, can begin
one. Layouts come from the kernel's format files; another one than we know is an error. Sources:
Documentation/trace/ftrace.rst, enum ring_buffer_type in linux/ring_buffer.h, rb_data_page in
kernel/trace/ring_buffer.c, libtraceevent's kbuffer-parse.c.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_FIELD = re.compile(
    r"field: ?(?P<type>[^;]*?)(?P<name>\w+)(?P<array>\[\w*\])?;"
    r"\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);\s*signed:(?P<signed>[01]);"
)
_CODES = {1: "b", 2: "h", 4: "i", 8: "q"}
_HEADER = (  # the head of every record, events/header_event
    "type_len : 5 bits time_delta : 27 bits array : 32 bits",
    "padding : type == 29 time_extend : type == 30 time_stamp : type == 31",
    "data max type_len == 28",
)
_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31
_DELTA_BITS = 27
_LENGTH = (1 << 27) - 1  # of `commit`; above it are flags
_LOST, _LOST_COUNTED = 1 << 31, 1 << 30


class _Field(NamedTuple):
    offset: int
    size: int
    is_signed: bool
    is_array: bool = False
    is_text: bool = False


_COMMON = {  # where every event has them
    "common_type": _Field(0, 2, is_signed=False),
    "common_pid": _Field(4, 4, is_signed=True),
}
_BEGINNING = struct.Struct("=H2xi")


class UnknownFormatError(Exception):
    """The kernel's trace buffer has a layout that this version does not know."""


class Record(NamedTuple):
    """One record: ``time`` in the trace clock's units, and where it is in its page."""

    time: int
    start: int
    end: int


class PageFormat:
    """How to find the records in a page of the buffer.

    ``page`` and ``event`` are the texts of events/header_page and events/header_event. Raises
    UnknownFormatError.
    """

    def __init__(self, page: str, event: str, byteorder: str = sys.byteorder) -> None:
        known = " ".join(event.split())
        if not all(part in known for part in _HEADER):
            raise UnknownFormatError("header_event")
        found = _fields(page, "header_page")
        try:
            stamp, commit, data = found["timestamp"], found["commit"], found["data"]
        except KeyError as error:
            raise UnknownFormatError(f"header_page without {error}") from error
        self._little = byteorder == "little"
        order = "<" if self._little else ">"
        self._stamp = struct.Struct(order + _code(stamp)), stamp.offset
        self._commit = struct.Struct(order + _code(commit).upper()), commit.offset
        self._word = struct.Struct(order + "I")
        self._data = data.offset
        self.size = data.offset + data.size
        """Bytes of a whole page."""

    def records(self, page: bytes) -> Iterator[Record]:
        """The records of one page, the oldest first; a damaged page ends early."""
        stamp, offset = self._stamp
        (time,) = stamp.unpack_from(page, offset)
        at, end = self._data, min(self._data + (self._head(page) & _LENGTH), len(page))
        while at + 8 <= end:  # the smallest record has a word of its own
            (head,) = self._word.unpack_from(page, at)
            (word,) = self._word.unpack_from(page, at + 4)
            kind, delta = self._split(head)
            at += 4
            if kind == _PADDING:
                if not delta:
                    return
                start = stop = at + word
            elif kind in (_TIME_EXTEND, _TIME_STAMP):
                delta += word << _DELTA_BITS
                time = 0 if kind == _TIME_STAMP else time
                start = stop = at + 4
            elif kind:
                start, stop = at, at + 4 * kind
            else:
                start, stop = at + 4, at + (word + 3 & ~3)
            time += delta
            if stop <= at or stop > end:
                return
            at = stop
            if start < stop:
                yield Record(time, start, stop)

    def lost(self, page: bytes) -> int:
        """How many records were overwritten before this page; 1 where that is not counted."""
        head = self._head(page)
        if not head & _LOST:
            return 0
        count, place = self._commit[0], self._data + (head & _LENGTH)
        if not head & _LOST_COUNTED or place + count.size > len(page):
            return 1
        return max(1, int(count.unpack_from(page, place)[0]))

    def _head(self, page: bytes) -> int:
        commit, offset = self._commit
        return int(commit.unpack_from(page, offset)[0])

    def _split(self, head: int) -> tuple[int, int]:
        """The type and the time since the record before: bit fields are in the CPU's order."""
        if self._little:
            return head & 31, head >> 5
        return head >> _DELTA_BITS, head & (1 << _DELTA_BITS) - 1


class EventFormat:
    """How to read the fields ``names`` of one kind of event, from its ``format`` file.

    Texts (``__data_loc``) come as the bytes up to the first NUL, whatever these are, arrays as
    bytes, others as integers. Raises UnknownFormatError.
    """

    def __init__(self, text: str, names: Sequence[str], byteorder: str = sys.byteorder) -> None:
        name, number = (re.search(rf"^{key}: (\w+)$", text, re.MULTILINE) for key in ("name", "ID"))
        if name is None or number is None:
            raise UnknownFormatError("an event without a number")
        found = _fields(text, name[1])
        missing = [one for one in names if one not in found]
        if missing:
            raise UnknownFormatError(f"{name[1]} without {', '.join(missing)}")
        if [found.get(one) for one in _COMMON] != list(_COMMON.values()):
            raise UnknownFormatError(f"{name[1]} with another beginning")
        self.id = int(number[1])
        places = sorted(names, key=lambda one: found[one].offset)
        code, at = "<" if byteorder == "little" else ">", 0
        for one in places:
            field = found[one]
            code += f"{field.offset - at}x{_code(field)}"
            at = field.offset + field.size
        self._struct = struct.Struct(code)
        self._order = [(places.index(one), found[one].is_text) for one in names]

    def read(self, page: bytes, record: Record) -> tuple[int | bytes, ...] | None:
        """The fields in the order of ``names``; None: the record is too short."""
        if record.end - record.start < self._struct.size:
            return None
        values = self._struct.unpack_from(page, record.start)
        return tuple(
            _text(page, record, values[place]) if is_text else values[place]
            for place, is_text in self._order
        )


def beginning(page: bytes, record: Record) -> tuple[int, int]:
    """The number of the record's event, and the thread that caused it; zeros without them."""
    if record.end - record.start < _BEGINNING.size:
        return 0, 0
    number, task = _BEGINNING.unpack_from(page, record.start)
    return number, task


def _text(page: bytes, record: Record, place: int) -> bytes:
    start, length = record.start + (place & 0xFFFF), place >> 16 & 0xFFFF
    return page[start : min(start + length, record.end)].partition(b"\0")[0]


def _fields(text: str, where: str) -> dict[str, _Field]:
    found = {
        one["name"]: _Field(
            int(one["offset"]),
            int(one["size"]),
            is_signed=one["signed"] == "1",
            is_array=one["array"] is not None,
            is_text=one["type"].startswith("__data_loc "),
        )
        for one in _FIELD.finditer(text)
    }
    if not found:
        raise UnknownFormatError(where)
    return found


def _code(field: _Field) -> str:
    """The field for `struct`."""
    if field.is_array or field.size not in _CODES:
        return f"{field.size}s"
    code = _CODES[field.size]
    return code if field.is_signed else code.upper()
