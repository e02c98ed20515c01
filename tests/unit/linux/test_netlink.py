"""The netlink codec: the kernel's answers and errors, and bytes that are neither."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllmwall.linux import netlink

SOCK_DIAG, BY_FAMILY = 4, 20
LISTENING = struct.pack("=BBBxI48s", socket.AF_INET, socket.IPPROTO_TCP, 0, 1 << 10, b"")
NO_PROTOCOL = struct.pack("=BBBxI48s", socket.AF_INET, 255, 0, 1 << 10, b"")
NO_FAMILY = struct.pack("=BBBxI48s", 255, socket.IPPROTO_TCP, 0, 1 << 10, b"")


@pytest.fixture
def diag() -> Iterator[socket.socket]:
    """A sock_diag socket in our own network namespace; nothing here writes."""
    with closing(netlink.opened(SOCK_DIAG)) as made:
        yield made


def test_a_dump_ends_and_the_socket_is_ready_for_the_next(diag: socket.socket) -> None:
    """Each listener is a message of the kind that was asked for."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = struct.pack("!H", listener.getsockname()[1])
        for _ in range(2):
            parts = list(netlink.dumped(diag, BY_FAMILY, LISTENING))
            found = [
                part[start + 4 : start + 6]
                for part in parts
                for start, end in netlink.messages(part, BY_FAMILY)
            ]
            assert 1 == found.count(port)


@pytest.mark.parametrize("request_bytes", [NO_PROTOCOL, NO_FAMILY], ids=["protocol", "family"])
def test_a_refused_dump_is_an_error(diag: socket.socket, request_bytes: bytes) -> None:
    """No answer is not an empty answer."""
    with pytest.raises(OSError, match="netlink: "):
        list(netlink.dumped(diag, BY_FAMILY, request_bytes))


def test_a_refused_question_is_an_error(diag: socket.socket) -> None:
    """The kernel's number comes through: callers tell what they may pass over."""
    with pytest.raises(OSError, match="netlink: No such file") as caught:
        netlink.answered(diag, BY_FAMILY, NO_PROTOCOL, 0)
    assert errno.ENOENT == caught.value.errno


def test_other_kinds_of_messages_are_passed_over(diag: socket.socket) -> None:
    """The end of a dump is a message too."""
    [*_, last] = netlink.dumped(diag, BY_FAMILY, LISTENING)
    assert [] == list(netlink.messages(last, BY_FAMILY + 1))


@pytest.mark.parametrize("length", range(9))
def test_an_attribute_is_padded_and_its_length_is_not(length: int) -> None:
    """The next one starts at a multiple of four."""
    made = netlink.attribute(7, b"x" * length)
    assert (4 + length, 7) == struct.unpack_from("=HH", made)
    assert 0 == len(made) % 4 < 4 <= len(made) - length < 8


ATTRIBUTES = st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=20), max_size=6)
MESSAGES = st.lists(st.tuples(st.integers(4, 0xFFFF), st.binary(max_size=20)), max_size=5)


def packed(messages: list[tuple[int, bytes]]) -> bytes:
    """A datagram, each message padded but the last."""
    made = [netlink.message(kind, 0, body) for kind, body in messages]
    return b"".join(one + bytes(-len(one) % 4) for one in made[:-1]) + b"".join(made[-1:])


@given(ATTRIBUTES)
def test_attributes_come_back_as_they_were_packed(wanted: dict[int, bytes]) -> None:
    """Nested ones under their own kind: the flag is the layout's, not the kind's."""
    made = b"".join(netlink.attribute(kind, value) for kind, value in wanted.items())
    assert wanted == netlink.values(made)
    assert {9: made} == netlink.values(netlink.nested(9, made))


@given(MESSAGES)
def test_messages_come_back_as_they_were_packed(wanted: list[tuple[int, bytes]]) -> None:
    """In their order."""
    data = packed(wanted)
    found = [(kind, data[start:end]) for kind, _, start, end in netlink.every_message(data)]
    assert wanted == found


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_one_error(noise: bytes) -> None:
    """Nothing else is raised, and no part reaches beyond the bytes."""
    with suppress(netlink.MalformedMessageError):
        for _, _, start, end in netlink.every_message(noise):
            assert 16 <= start <= end <= len(noise)


@given(st.binary(max_size=200))
def test_any_bytes_are_attributes_or_one_error(noise: bytes) -> None:
    """Nothing else is raised, and no part reaches beyond the bytes."""
    with suppress(netlink.MalformedMessageError):
        for _, (start, end) in netlink.spans(noise, 0, len(noise)):
            assert 4 <= start <= end <= len(noise)


@given(MESSAGES.filter(bool), st.data())
def test_a_datagram_that_was_cut_off_is_an_error(
    wanted: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    """A part of an answer is never taken for the whole."""
    ends, whole = [0], packed(wanted)
    for _, _, _, end in netlink.every_message(whole):
        ends += range(end, end + 4)  # without its padding a message is whole too
    cut = data.draw(st.integers(1, len(whole) - 1).filter(lambda length: length not in ends))
    with pytest.raises(netlink.MalformedMessageError, match="malformed message at byte"):
        list(netlink.every_message(whole[:cut]))


@pytest.mark.parametrize("length", [0, 3, 9, 0xFFFF])
def test_an_attribute_whose_length_lies_is_an_error(length: int) -> None:
    """Zero would be read for ever, more than there is would be read from elsewhere."""
    with pytest.raises(netlink.MalformedMessageError, match="malformed attribute at byte 0"):
        netlink.values(struct.pack("=HHI", length, 1, 0))


def test_a_body_that_is_too_short_is_an_error() -> None:
    """Fixed parts of a layout are never read beyond the message."""
    data = netlink.message(BY_FAMILY, 0, bytes(71))
    with pytest.raises(netlink.MalformedMessageError):
        list(netlink.messages(data, BY_FAMILY, 72))


@given(st.binary(max_size=120))
def test_whatever_answers_a_request_is_an_answer_or_an_os_error(noise: bytes) -> None:
    """Callers handle OSError, so a kernel that breaks the layout costs one request."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there, suppress(OSError):
        here.settimeout(5)
        there.send(noise)
        assert len(netlink.answered(here, BY_FAMILY, b"", 4)) >= 4
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there, suppress(OSError):
        here.settimeout(5)
        there.send(noise)
        there.send(netlink.message(3, 0, bytes(4)))
        list(netlink.dumped(here, BY_FAMILY, b""))
