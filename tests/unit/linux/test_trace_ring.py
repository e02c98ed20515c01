"""Pages of the trace buffer, made by hand in both byte orders."""

from __future__ import annotations

import random
import struct

import pytest

from vllmwall.linux.trace_ring import EventFormat, PageFormat, Record, UnknownFormatError

PAGE = """\
\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;
\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;
\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;
"""
EVENT = """\
# compressed entry header
\ttype_len    :    5 bits
\ttime_delta  :   27 bits
\tarray       :   32 bits

\tpadding     : type == 29
\ttime_extend : type == 30
\ttime_stamp : type == 31
\tdata max type_len  == 28
"""
MKDIR = """\
name: cgroup_mkdir
ID: 544
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:__u8 saddr[4];\toffset:8;\tsize:4;\tsigned:0;
\tfield:u64 id;\toffset:16;\tsize:8;\tsigned:0;
\tfield:__data_loc char[] path;\toffset:24;\tsize:4;\tsigned:0;
"""
ORDERS = pytest.mark.parametrize("order", ["little", "big"])
LOST, COUNTED = 1 << 31, 1 << 30


def head(order: str, kind: int, delta: int) -> bytes:
    word = kind | delta << 5 if order == "little" else kind << 27 | delta
    return word.to_bytes(4, order)  # type: ignore[arg-type]


def page(order: str, records: bytes, flags: int = 0, after: bytes = b"") -> bytes:
    sign = "<" if order == "little" else ">"
    made = struct.pack(f"{sign}QQ", 1000, len(records) | flags) + records + after
    return made.ljust(4096, b"\xee")


def number(order: str, value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, order)  # type: ignore[arg-type]


@ORDERS
def test_every_kind_of_record(order: str) -> None:
    """The times are those since the page began; a discarded record is skipped."""
    records = head(order, 2, 5) + b"12345678"
    records += head(order, 29, 1) + number(order, 8) + b"gone"  # discarded
    records += head(order, 30, 3) + number(order, 2)  # time extend
    records += head(order, 0, 1) + number(order, 4 + 113) + bytes(116)  # longer than 28 words
    records += head(order, 31, 7) + number(order, 1)  # absolute time
    records += head(order, 1, 2) + b"last"
    records += head(order, 29, 0) + number(order, 0) + head(order, 1, 2) + b"none"
    found = PageFormat(PAGE, EVENT, order)
    long = 16 + 12 + 12 + 8 + 8
    assert [
        Record(1005, 20, 28),
        Record(1005 + 1 + 3 + (2 << 27) + 1, long, long + 116),
        Record(7 + (1 << 27) + 2, long + 116 + 8 + 4, long + 116 + 8 + 8),
    ] == list(found.records(page(order, records)))


@ORDERS
def test_lost_records_are_counted(order: str) -> None:
    """As far as the kernel had room for their number."""
    found, record = PageFormat(PAGE, EVENT, order), head(order, 1, 2) + b"last"
    assert 0 == found.lost(page(order, record))
    assert 1 == found.lost(page(order, record, LOST))
    after = number(order, 42, 8)
    assert 42 == found.lost(page(order, record, LOST | COUNTED, after))
    assert 1 == len(list(found.records(page(order, record, LOST | COUNTED, after))))


@ORDERS
def test_the_fields_of_an_event(order: str) -> None:
    """By the places that the kernel names; a text ends at its NUL, or where its record does."""
    names = ("path", "id", "saddr", "common_pid")
    layout = EventFormat(MKDIR, names, order)
    assert 544 == layout.id
    body = number(order, 544, 2) + bytes(2) + number(order, 77) + b"\x7f\x00\x00\x01" + bytes(4)
    body += number(order, 1 << 40, 8) + number(order, 8 << 16 | 28) + b"/a\nb\0..."
    rest = (1 << 40, b"\x7f\x00\x00\x01", 77)
    assert (b"/a\nb", *rest) == layout.read(body, Record(0, 0, len(body)))
    assert (b"/a", *rest) == layout.read(body, Record(0, 0, 30))
    assert None is layout.read(body, Record(0, 0, 27))


def test_random_pages_end(seed: int = 7) -> None:
    """Whatever is in them: no record lies outside, and none begins before the last ended."""
    found, chosen = PageFormat(PAGE, EVENT), random.Random(seed)
    for _ in range(2000):
        length = chosen.choice((0, 8, 100, 4080, chosen.getrandbits(64)))
        made = struct.pack("=QQ", 1000, length & (1 << 64) - 1) + chosen.randbytes(4080)
        records = list(found.records(made))
        edges = [edge for one in records for edge in (one.start, one.end)]
        assert edges == sorted(edges)
        assert all(16 < edge <= 4096 for edge in edges)
        assert found.lost(made) >= 0


@pytest.mark.parametrize(
    ("header", "event"),
    [
        (PAGE, EVENT.replace("29", "28")),
        (PAGE, EVENT.replace("27 bits", "28 bits")),
        (PAGE.replace("commit", "filled"), EVENT),
        ("", EVENT),
    ],
)
def test_another_layout_is_an_error(header: str, event: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(UnknownFormatError):
        PageFormat(header, event)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("path", "name"),
        ("ID: 544", "ID"),
        ("name:", "who:"),
        ("common_pid", "pid"),
        ("common_type;\toffset:0", "common_type;\toffset:2"),
    ],
)
def test_another_event_is_an_error(old: str, new: str) -> None:
    """It says which."""
    with pytest.raises(UnknownFormatError):
        EventFormat(MKDIR.replace(old, new), ("path",))
