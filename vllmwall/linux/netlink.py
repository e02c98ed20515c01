"""Netlink by hand: one request, its answers, nothing more.

For the few kernel interfaces that are read on the hot path or that no library decodes fast
enough. Layouts: linux/netlink.h. A socket belongs to the network namespace of the thread that
opened it (`vllmwall.linux.netns.run_in`) and works from any thread afterwards.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")

_ERROR = 2  # NLMSG_ERROR; 0 in it confirms
_LAST = (_ERROR, 3)  # NLMSG_DONE
_ASK, _ASK_FOR_ALL, _ASK_AND_CONFIRM = 0x1, 0x301, 0x5  # NLM_F_REQUEST, |NLM_F_DUMP, |NLM_F_ACK
_RECEIVE_BYTES = 1 << 18
_PATIENCE = 5  # seconds; the kernel answers in the call itself


def opened(protocol: int) -> socket.socket:
    """A netlink socket; the caller closes it. Raises OSError."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    made.settimeout(_PATIENCE)
    return made


def dumped(asked: socket.socket, kind: int, request: bytes) -> Iterator[bytes]:
    """All answers to a request, in parts for `messages`. Raises OSError where it is refused.

    Take all parts before the next request.
    """
    asked.send(_message(kind, _ASK_FOR_ALL, request))
    while True:
        data = asked.recv(_RECEIVE_BYTES)
        yield data
        if _is_last(data):
            return


def answered(asked: socket.socket, kind: int, request: bytes) -> bytes:
    """The one answer to a request, with its header. Raises OSError where it is refused."""
    asked.send(_message(kind, _ASK, request))
    return _answer(asked)


def confirmed(asked: socket.socket, kind: int, request: bytes) -> None:
    """Have something done. Raises OSError where it is refused."""
    asked.send(_message(kind, _ASK_AND_CONFIRM, request))
    _answer(asked)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    length = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def messages(data: bytes, kind: int) -> Iterator[tuple[int, int]]:
    """Where the contents of each message of this kind begin and end."""
    position = 0
    while position < len(data):
        length, found, _, _, _ = HEADER.unpack_from(data, position)
        if found == kind:
            yield position + HEADER.size, position + length
        position += (length + 3) & ~3


def _message(kind: int, flags: int, request: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(request), kind, flags, 1, 0) + request


def _answer(asked: socket.socket) -> bytes:
    data = asked.recv(_RECEIVE_BYTES)
    if HEADER.unpack_from(data)[1] == _ERROR:
        _raise_error(data, 0)
    return data


def _is_last(data: bytes) -> bool:
    position = 0
    while position < len(data):
        length, kind, _, _, _ = HEADER.unpack_from(data, position)
        if kind in _LAST:  # both begin with an error number: a dump can fail when it is done
            _raise_error(data, position)
            return True
        position += (length + 3) & ~3
    return False


def _raise_error(data: bytes, position: int) -> None:
    code = -struct.unpack_from("=i", data, position + HEADER.size)[0]
    if code:
        raise OSError(code, f"netlink: {os.strerror(code)}")
