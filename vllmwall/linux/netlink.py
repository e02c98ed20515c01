"""Netlink messages: packed, sent, received and taken apart, for every interface that we speak.

By hand, because these answers are on the path of every pass: 3,500 listeners take 3 ms here,
43 ms with ss and 287 ms with pyroute2, whose import alone costs the daemon 16 MB; and an owned
table can be changed by one socket only, which must be ours. pyroute2 is used where neither
matters: links, routes and addresses in `vllmwall.inspect`, chains of other tables in
`vllmwall.observe.other_firewalls`, exec events in `vllmwall.observe.proc_connector`.

Layouts: linux/netlink.h. What does not have this layout raises `MalformedMessageError`. A socket
belongs to the network namespace of the thread that opened it (`vllmwall.linux.netns.run_in`) and
works from any thread afterwards.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

SOCK_DIAG, ROUTE, NETFILTER = 4, 0, 12  # NETLINK_SOCK_DIAG, NETLINK_ROUTE, NETLINK_NETFILTER
ERROR = 2  # NLMSG_ERROR; 0 in it confirms
REQUEST, ACK, CREATE = 0x1, 0x4, 0x400  # NLM_F_*

_HEADER = struct.Struct("=IHHII")
_HEADER_BYTES = 16
_ATTRIBUTE = struct.Struct("=HH")
_CODE = struct.Struct("=i")
_NESTED = 0x8000  # NLA_F_NESTED
_TYPE = 0x3FFF  # NLA_TYPE_MASK
_LAST = (ERROR, 3)  # NLMSG_DONE
_DUMP = 0x300  # NLM_F_DUMP
_RECEIVE_BYTES = 1 << 18
_PATIENCE = 5  # seconds; the kernel answers in the call itself


class MalformedMessageError(OSError):
    """Bytes that are no netlink message or attribute: cut off, or with a length that lies."""

    def __init__(self, what: str, position: int) -> None:
        super().__init__(errno.EBADMSG, f"netlink: malformed {what} at byte {position}")


Message = tuple[int, int, int, int]
"""One message of a datagram: kind, port that caused it, start and end of its body."""


def opened(protocol: int) -> socket.socket:
    """A netlink socket; the caller closes it. Raises OSError."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    made.settimeout(_PATIENCE)
    return made


def dumped(asked: socket.socket, kind: int, request: bytes) -> Iterator[bytes]:
    """All answers to a request, in parts for `messages`. Raises OSError when refused.

    Read all parts before the next request.
    """
    asked.send(message(kind, REQUEST | _DUMP, request))
    while True:
        data = asked.recv(_RECEIVE_BYTES)
        yield data
        if _is_last(data):
            return


def answered(asked: socket.socket, kind: int, request: bytes, least: int) -> bytes:
    """The body of the one answer to a request, of ``least`` bytes. Raises OSError when refused."""
    asked.send(message(kind, REQUEST, request))
    return _answer(asked, least)


def confirmed(asked: socket.socket, kind: int, request: bytes) -> None:
    """Send a request that the kernel confirms. Raises OSError when refused."""
    asked.send(message(kind, REQUEST | ACK, request))
    _answer(asked, 0)


def message(kind: int, flags: int, body: bytes, sequence: int = 1) -> bytes:
    """One message."""
    return _HEADER.pack(_HEADER_BYTES + len(body), kind, flags, sequence, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def nested(kind: int, value: bytes) -> bytes:
    """One attribute that holds others."""
    return attribute(kind | _NESTED, value)


def text(kind: int, value: str) -> bytes:
    """One attribute that holds a name."""
    return attribute(kind, value.encode() + b"\0")


def every_message(data: bytes) -> Iterator[Message]:
    """The messages of a datagram. Raises MalformedMessageError."""
    position, size = 0, len(data)
    while position < size:
        if position + _HEADER_BYTES > size:
            raise MalformedMessageError("message", position)
        length, kind, _, _, port = _HEADER.unpack_from(data, position)
        if length < _HEADER_BYTES or position + length > size:
            raise MalformedMessageError("message", position)
        yield kind, port, position + _HEADER_BYTES, position + length
        position += (length + 3) & ~3


def messages(data: bytes, kind: int, least: int = 0) -> Iterator[tuple[int, int]]:
    """Where the body of each message of this kind begins and ends; ``least`` is its shortest.

    Raises MalformedMessageError.
    """
    for found, _, start, end in every_message(data):
        if found == kind:
            if end - start < least:
                raise MalformedMessageError("message", start)
            yield start, end


def spans(data: bytes, position: int, end: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """The kind of each attribute, and where its value begins and ends.

    Raises MalformedMessageError.
    """
    while position < end:
        if end - position < _ATTRIBUTE.size:
            raise MalformedMessageError("attribute", position)
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if length < _ATTRIBUTE.size or position + length > end:
            raise MalformedMessageError("attribute", position)
        yield kind & _TYPE, (position + _ATTRIBUTE.size, position + length)
        position += (length + 3) & ~3


def values(data: bytes, position: int = 0, end: int | None = None) -> dict[int, bytes]:
    """The values of attributes by kind; of equal kinds the last. Raises MalformedMessageError."""
    found = spans(data, position, len(data) if end is None else end)
    return {kind: data[start:stop] for kind, (start, stop) in found}


def error_code(data: bytes, position: int) -> int:
    """The error number that a body of kind `ERROR` begins with; 0: none.

    Raises MalformedMessageError.
    """
    if len(data) - position < _CODE.size:
        raise MalformedMessageError("error", position)
    return -int(_CODE.unpack_from(data, position)[0])


def _answer(asked: socket.socket, least: int) -> bytes:
    data = asked.recv(_RECEIVE_BYTES)
    for kind, _, start, end in every_message(data):
        if kind == ERROR:
            _raise_error(data, start)
        if end - start < least:
            break
        return data[start:end]
    raise MalformedMessageError("answer", 0)


def _is_last(data: bytes) -> bool:
    for kind, _, start, _ in every_message(data):
        if kind in _LAST:  # both begin with an error number: a dump can fail when it is done
            _raise_error(data, start)
            return True
    return False


def _raise_error(data: bytes, position: int) -> None:
    code = error_code(data, position)
    if code:
        raise OSError(code, f"netlink: {os.strerror(code)}")
