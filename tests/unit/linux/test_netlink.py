"""Netlink by hand: what the kernel says is heard, errors too."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import closing

import pytest

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
        netlink.answered(diag, BY_FAMILY, NO_PROTOCOL)
    assert errno.ENOENT == caught.value.errno


def test_other_kinds_of_messages_are_passed_over(diag: socket.socket) -> None:
    """The end of a dump is a message too."""
    [*_, last] = netlink.dumped(diag, BY_FAMILY, LISTENING)
    assert [] == list(netlink.messages(last, BY_FAMILY + 1))


@pytest.mark.parametrize("length", range(9))
def test_an_attribute_is_padded_and_its_length_is_not(length: int) -> None:
    """The next one starts at a multiple of four."""
    made = netlink.attribute(7, b"x" * length)
    assert (4 + length, 7) == netlink.ATTRIBUTE.unpack_from(made)
    assert 0 == len(made) % 4 < 4 <= len(made) - length < 8
