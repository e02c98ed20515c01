"""TCP connections with their state and the bytes that they carried.

Layout: struct tcp_info, linux/tcp.h; a test checks it on the running kernel.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from vllmwall.linux import netlink
from vllmwall.linux.connections import (
    AFTER_CLOSE,
    BY_FAMILY,
    MESSAGE,
    REQUEST,
    STATES,
    Connection,
    decoded,
    only_at,
)

_INFO = 2  # INET_DIAG_INFO; asked for by the bit before
_TCP_INFO = struct.Struct("=120xQQ")  # bytes_acked, bytes_received
_NAMES = {
    1: "established",
    2: "syn-sent",
    3: "syn-received",
    4: "fin-wait-1",
    5: "fin-wait-2",
    8: "close-wait",
    9: "last-ack",
    11: "closing",
}  # net/tcp_states.h


@dataclass(frozen=True)
class Established:
    """A connection, from this end. ``received`` and ``sent`` are bytes of data; sent bytes count
    once the other end has acknowledged them."""

    connection: Connection
    state: str
    received: int = 0
    sent: int = 0


def established(diag: socket.socket, ports: Collection[int]) -> Iterator[Established]:
    """The connections at these local ports that a process here still holds, or will get.

    Raises OSError when the kernel refuses the request. If you do not read them all, close the
    socket.
    """
    wanted = frozenset(ports)
    places: dict[int, int | None] = {}  # messages of equal length have the same layout
    for family in (socket.AF_INET, socket.AF_INET6):
        request = REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (_INFO - 1), STATES, b"")
        for part in netlink.dumped(diag, BY_FAMILY, request + only_at(wanted)):
            for start, end in netlink.messages(part, BY_FAMILY, MESSAGE.size):
                fields = MESSAGE.unpack_from(part, start)
                state, name, uid, inode = fields[1], fields[4], fields[8], fields[9]
                connection = decoded(part[start : start + 1] + name, uid)
                if connection.local_port in wanted and (inode or state not in AFTER_CLOSE):
                    length = end - start
                    if length not in places:
                        places[length] = _place_of_info(part, start, end)
                    yield _measured(connection, state, part, start, places[length])


def _measured(
    connection: Connection, state: int, data: bytes, start: int, place: int | None
) -> Established:
    """Without byte counts for a handshake, and on kernels before 4.6."""
    name = _NAMES.get(state, str(state))
    if place is None:
        return Established(connection, name)
    sent, received = _TCP_INFO.unpack_from(data, start + place)
    return Established(connection, name, received, sent)


def _place_of_info(data: bytes, start: int, end: int) -> int | None:
    """Where the kernel's struct begins, from the start of the message."""
    for kind, (first, last) in netlink.spans(data, start + MESSAGE.size, end):
        if kind == _INFO and last - first >= _TCP_INFO.size:
            return first - start
    return None
