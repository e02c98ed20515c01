"""Reading nf_tables' notifications: who closed which port, and when."""

from __future__ import annotations

import struct

import pytest

from tests.bench.commits import Commit, Reader

NEW_ELEMENTS, DELETED_ELEMENTS, NEW_GENERATION = 0xA0C, 0xA0E, 0xA0F


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, *attributes: bytes) -> bytes:
    """One netlink message of nf_tables."""
    body = b"\x01\x00\x00\x00" + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def elements(kind: int, name: bytes, *keys: bytes) -> bytes:
    """Elements of a set, as the kernel announces them."""
    listed = b"".join(attribute(0x8001, attribute(0x8001, attribute(1, one))) for one in keys)
    named = attribute(1, b"vllmwall\0") + attribute(2, name + b"\0")
    return message(kind, named, attribute(0x8003, listed))


def generation(pid: int, name: bytes) -> bytes:
    """The end of a transaction."""
    parts = attribute(1, b"\0\0\0\7"), attribute(2, pid.to_bytes(4, "big"))
    return message(NEW_GENERATION, *parts, attribute(3, name + b"\0"))


def record(at: int, *messages: bytes) -> bytes:
    """What watch.c writes for one notification."""
    data = b"".join(messages)
    return struct.pack("=qI", at, len(data)) + data


def port(number: int) -> bytes:
    """A key of walled_any4: tcp, port."""
    return b"\x06\0\0\0" + number.to_bytes(2, "big") + b"\0\0"


STREAM = record(5, elements(NEW_ELEMENTS, b"walled_any4", port(29500), port(29501))) + record(
    7, generation(42, b"python3")
)
COMMIT = Commit(7, 42, "python3", frozenset({29500, 29501}))


def test_a_commit_is_live_when_its_generation_is_announced() -> None:
    """Its elements come before, maybe in another message; they are the ports that it closed."""
    assert [COMMIT] == list(Reader().feed(STREAM))


def test_the_pipe_may_cut_anywhere() -> None:
    """A record is read when it is whole, and not before."""
    for cut in range(len(STREAM)):
        reader = Reader()
        assert [COMMIT] == [*reader.feed(STREAM[:cut]), *reader.feed(STREAM[cut:])]


def test_a_port_is_the_end_of_a_longer_key() -> None:
    """Where the address is part of the key, it stands before protocol and port."""
    key = b"\xc0\0\2\1" + port(8000)
    data = record(1, elements(NEW_ELEMENTS, b"walled_addr4", key), generation(1, b"nft"))
    assert [Commit(1, 1, "nft", frozenset({8000}))] == list(Reader().feed(data))


@pytest.mark.parametrize(
    "other",
    [
        elements(NEW_ELEMENTS, b"any4", port(8000)),
        elements(DELETED_ELEMENTS, b"walled_any4", port(8000)),
        message(0xA00, attribute(1, b"filter\0")),
    ],
)
def test_only_what_is_put_into_a_walled_set_closes_a_port(other: bytes) -> None:
    """Not an element of a map, not one that is taken away, not another object."""
    assert [Commit(9, 3, "nft", frozenset())] == list(
        Reader().feed(record(9, other, generation(3, b"nft")))
    )


def test_ports_belong_to_their_own_transaction() -> None:
    """The next commit does not close them again."""
    reader = Reader()
    found = [*reader.feed(STREAM), *reader.feed(record(9, generation(43, b"nft")))]
    assert [COMMIT, Commit(9, 43, "nft", frozenset())] == found
