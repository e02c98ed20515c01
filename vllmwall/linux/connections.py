"""TCP connections of one network namespace: read by sock_diag, reset by SOCK_DESTROY.

The kernel filters by port. A connection is kept as the bytes that identify it in the kernel, with
its cookie, so that ten thousand cost little and a reset affects only that socket. Layouts:
linux/inet_diag.h, linux/rtnetlink.h, and struct tcp_info in linux/tcp.h, which a test checks on the
running kernel. Sockets are those of `netlink.opened`.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from vllmwall.cidr import host_port
from vllmwall.linux import netlink
from vllmwall.model import Address, Network, WallEntry

_BY_FAMILY, _DESTROY = 20, 21  # SOCK_DIAG_BY_FAMILY, SOCK_DESTROY
_GET_ROUTE = 26  # RTM_GETROUTE
_LOCAL = 2  # RTN_LOCAL
# Nothing, RTN_UNREACHABLE, RTN_PROHIBIT and RTN_BLACKHOLE, net/ipv4/fib_semantics.c
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)
_DESTINATION = 1  # RTA_DST
_BYTECODE = 1  # INET_DIAG_REQ_BYTECODE
_JUMP, _AT_LEAST, _AT_MOST = 1, 2, 3  # INET_DIAG_BC_JMP, _S_GE, _S_LE
_REMOTE = 2  # further: _D_GE, _D_LE
# net/tcp_states.h. The kernel takes SYN_RECV for NEW_SYN_RECV too: a handshake that no process has
# seen yet.
_STATES = {
    1: "established",
    2: "syn-sent",
    3: "syn-received",
    4: "fin-wait-1",
    5: "fin-wait-2",
    8: "close-wait",
    9: "last-ack",
    11: "closing",
}
_WANTED = sum(1 << state for state in _STATES)
_AFTER_CLOSE = (4, 5, 9, 11)
_MOST_RANGES = 100  # more, and the kernel compares longer than we would

_REQUEST = struct.Struct("=BBBxI48s")
_MESSAGE = struct.Struct("=BBBB48s5I")
_STEP = struct.Struct("=BBH")
_ROUTE_MESSAGE = struct.Struct("=8BI")
_TYPE_OF_ROUTE = 7  # rtm_type
_INFO = 2  # INET_DIAG_INFO; asked for by the bit before
_TCP_INFO = struct.Struct("=120xQQ")  # bytes_acked, bytes_received

Refusing = WallEntry | Network
"""The entry or the ban that blocks a connection."""


@dataclass(frozen=True)
class Connection:
    """One TCP connection as its packets show it: IPv4 addresses for ``::ffff:a.b.c.d``.

    ``uid`` owns the socket at this end. ``here``: the other end is on this host too, so its
    packets arrive on lo. ``entry`` is the entry or banned network that blocks it. ``handle``
    identifies the socket to the kernel.
    """

    local: Address
    local_port: int
    remote: Address
    remote_port: int
    uid: int = 0
    here: bool = False
    entry: Refusing | None = None
    handle: bytes = field(default=b"", repr=False, compare=False)

    def __str__(self) -> str:
        """Both ends, for the log."""
        remote = host_port(self.remote, self.remote_port)
        return f"{remote} to {host_port(self.local, self.local_port)}"


def handles(diag: socket.socket, ports: Collection[int]) -> Iterator[tuple[bytes, int]]:
    """The handle and the owner's uid of every connection at these local ports (none: at any).

    There may be others among them. Connections that their process has closed are left out: before
    Linux 6.11 a reset made such a socket stay for ever (commit bac76cf89816). Raises OSError when
    the kernel refuses the request.
    """
    for handle, uid, _, _, _ in _answers(diag, only_at(ports)):
        yield handle, uid


def _answers(
    diag: socket.socket, asked: bytes, extensions: int = 0
) -> Iterator[tuple[bytes, int, int, int, tuple[bytes, int, int]]]:
    """Handle, uid, inode and state of each, and where its message begins and ends in which
    bytes."""
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _REQUEST.pack(family, socket.IPPROTO_TCP, extensions, _WANTED, b"")
        for part in netlink.dumped(diag, _BY_FAMILY, request + asked):
            for start, end in netlink.messages(part, _BY_FAMILY, _MESSAGE.size):
                _, state, _, _, name, _, _, _, uid, inode = _MESSAGE.unpack_from(part, start)
                if inode or state not in _AFTER_CLOSE:
                    yield part[start : start + 1] + name, uid, inode, state, (part, start, end)


@dataclass(frozen=True)
class Established:
    """A connection, from this end. ``received`` and ``sent`` are bytes of data; sent bytes count
    once the other end has acknowledged them, and the end that connected counts one more. Both are
    0 for a handshake, and before Linux 4.6. ``inode`` is the socket's; 0: no process has it."""

    connection: Connection
    state: str
    received: int = 0
    sent: int = 0
    inode: int = 0


def established(
    diag: socket.socket, ports: Collection[int], *, remote: bool = False
) -> Iterator[Established]:
    """The connections at these local ports (``remote``: to these ports) that a process here still
    holds, or will get.

    Raises OSError when the kernel refuses the request. If you do not read them all, close the
    socket.
    """
    wanted = frozenset(ports)
    places: dict[int, int | None] = {}  # messages of equal length have the same layout
    asked = only_at(wanted, remote=remote)
    for handle, uid, inode, state, (part, start, end) in _answers(diag, asked, 1 << (_INFO - 1)):
        connection = decoded(handle, uid)
        if (connection.remote_port if remote else connection.local_port) in wanted:
            length = end - start
            if length not in places:
                places[length] = _place_of_info(part, start, end)
            place, sent, received = places[length], 0, 0
            if place is not None:
                sent, received = _TCP_INFO.unpack_from(part, start + place)
            named = _STATES.get(state, str(state))
            yield Established(connection, named, received, sent, inode)


def _place_of_info(data: bytes, start: int, end: int) -> int | None:
    """Where the kernel's struct begins, from the start of the message."""
    for kind, (first, last) in netlink.spans(data, start + _MESSAGE.size, end):
        if kind == _INFO and last - first >= _TCP_INFO.size:
            return first - start
    return None


def ends(handle: bytes) -> bytes:
    """The part that decides the verdict: family, both addresses, and the local port."""
    return handle[:3] + handle[5:37]


def decoded(handle: bytes, uid: int, entry: Refusing | None = None) -> Connection:
    """The connection that a handle identifies, and the entry that blocks it."""
    family = handle[0]
    return Connection(
        local=_address(family, handle[5:21]),
        local_port=int.from_bytes(handle[1:3], "big"),
        remote=_address(family, handle[21:37]),
        remote_port=int.from_bytes(handle[3:5], "big"),
        uid=uid,
        entry=entry,
        handle=handle,
    )


def reset(diag: socket.socket, handle: bytes) -> None:
    """Reset a connection at both ends. Raises OSError: ENOENT if it has ended already,
    EOPNOTSUPP on a kernel without CONFIG_INET_DIAG_DESTROY."""
    request = _REQUEST.pack(handle[0], socket.IPPROTO_TCP, 0, _WANTED, handle[1:])
    netlink.confirmed(diag, _DESTROY, request)


def is_here(route: socket.socket, address: Address) -> bool:
    """Whether the kernel routes packets to this address to this host itself.

    An address without a route is elsewhere. Raises OSError when the request fails.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    message = _ROUTE_MESSAGE.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    request = message + netlink.attribute(_DESTINATION, address.packed)
    try:
        answer = netlink.answered(route, _GET_ROUTE, request, _ROUTE_MESSAGE.size)
        return answer[_TYPE_OF_ROUTE] == _LOCAL
    except OSError as error:
        if error.errno not in _NO_ROUTE:
            raise
        return False


@lru_cache(maxsize=4096)
def _address(family: int, packed: bytes) -> Address:
    if family == socket.AF_INET:
        return IPv4Address(packed[:4])
    address = IPv6Address(packed)
    return address.ipv4_mapped or address


def only_at(ports: Collection[int], *, remote: bool = False) -> bytes:
    """The filter by which the kernel leaves out other local ports (``remote``: ports of the other
    end); none for very many ranges.

    For each range: at least its first, at most its last, then jump to the end; what falls
    through jumps behind the end, which means no. (inet_diag_bc_run, net/ipv4/inet_diag.c; a
    jump forward in ``yes`` must stay below 256, so the long ones are jumps of their own.)
    """
    ranges = _ranges(ports)
    if not 0 < len(ranges) <= _MOST_RANGES:
        return b""
    length = 20 * len(ranges) + 4
    least, most = (one + _REMOTE * remote for one in (_AT_LEAST, _AT_MOST))
    steps = b""
    for first, last in ranges:
        steps += _STEP.pack(least, 8, 20) + _STEP.pack(0, 0, first)
        steps += _STEP.pack(most, 8, 12) + _STEP.pack(0, 0, last)
        steps += _STEP.pack(_JUMP, 4, length - len(steps))
    return netlink.attribute(_BYTECODE, steps + _STEP.pack(_JUMP, 4, 8))


def _ranges(ports: Collection[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for port in sorted(set(ports)):
        if found and found[-1][1] == port - 1:
            found[-1] = (found[-1][0], port)
        else:
            found.append((port, port))
    return found
