"""TCP connections with what went over them, and how old they are as far as the kernel tells.

The kernel keeps no time of birth. It keeps when data last came and went, and both clocks start
with the connection: so a connection on which this end never sent, or never received, tells its
age; any other one tells that it is at least as old as the longer of two silences. Layouts:
struct tcp_info, linux/tcp.h; seen on 6.18, and a test keeps it.
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
# last_data_sent, last_data_recv (ms); bytes_acked, bytes_received; data_segs_in, data_segs_out
_TCP_INFO = struct.Struct("=44xI4xI64xQQ16xII")
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
    """A connection, from this end. ``received`` and ``sent`` are bytes of its data; what was sent
    counts when the other end has it. ``seconds`` is its age, or a bound below it where
    ``is_exact`` is False."""

    connection: Connection
    state: str
    received: int = 0
    sent: int = 0
    seconds: float = 0.0
    is_exact: bool = False


def established(diag: socket.socket, ports: Collection[int]) -> Iterator[Established]:
    """The connections at these local ports that a process here still holds, or will get.

    Raises OSError when the kernel refuses the request. Whoever stops in the middle closes the
    socket.
    """
    wanted = frozenset(ports)
    places: dict[int, int | None] = {}  # messages of one length are alike
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
    """Kernels before 4.6 tell less, and a handshake tells nothing."""
    name = _NAMES.get(state, str(state))
    if place is None:
        return Established(connection, name)
    sent_ago, received_ago, sent, received, came, went = _TCP_INFO.unpack_from(data, start + place)
    silence = max(sent_ago, received_ago) / 1000
    return Established(connection, name, received, sent, silence, not (came and went))


def _place_of_info(data: bytes, start: int, end: int) -> int | None:
    """Where the kernel's struct begins, from the start of the message."""
    for kind, (first, last) in netlink.spans(data, start + MESSAGE.size, end):
        if kind == _INFO and last - first >= _TCP_INFO.size:
            return first - start
    return None
