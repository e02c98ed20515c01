"""TCP connections of one network namespace: read by sock_diag, reset by SOCK_DESTROY.

The kernel filters by port. A connection is kept as the bytes that identify it in the kernel, with
its cookie, so that ten thousand cost little and a reset affects only that socket. Layouts:
linux/inet_diag.h, linux/rtnetlink.h. Sockets are those of `netlink.opened`.
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

BY_FAMILY, _DESTROY = 20, 21  # SOCK_DIAG_BY_FAMILY, SOCK_DESTROY
_GET_ROUTE = 26  # RTM_GETROUTE
_LOCAL = 2  # RTN_LOCAL
# Nothing, RTN_UNREACHABLE, RTN_PROHIBIT and RTN_BLACKHOLE, net/ipv4/fib_semantics.c
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)
_DESTINATION = 1  # RTA_DST
_BYTECODE = 1  # INET_DIAG_REQ_BYTECODE
_JUMP, _AT_LEAST, _AT_MOST = 1, 2, 3  # INET_DIAG_BC_JMP, _S_GE, _S_LE
# ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT1 FIN_WAIT2 CLOSE_WAIT LAST_ACK CLOSING, net/tcp_states.h.
# The kernel takes SYN_RECV for NEW_SYN_RECV too: a handshake that no process has seen yet.
STATES = sum(1 << state for state in (1, 2, 3, 4, 5, 8, 9, 11))
AFTER_CLOSE = (4, 5, 9, 11)
_MOST_RANGES = 100  # more, and the kernel compares longer than we would

REQUEST = struct.Struct("=BBBxI48s")
MESSAGE = struct.Struct("=BBBB48s5I")
_STEP = struct.Struct("=BBH")
_ROUTE_MESSAGE = struct.Struct("=8BI")
_TYPE_OF_ROUTE = 7  # rtm_type

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
    for family in (socket.AF_INET, socket.AF_INET6):
        request = REQUEST.pack(family, socket.IPPROTO_TCP, 0, STATES, b"") + only_at(ports)
        for part in netlink.dumped(diag, BY_FAMILY, request):
            for start, _ in netlink.messages(part, BY_FAMILY, MESSAGE.size):
                _, state, _, _, name, _, _, _, uid, inode = MESSAGE.unpack_from(part, start)
                if inode or state not in AFTER_CLOSE:
                    yield part[start : start + 1] + name, uid


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
    request = REQUEST.pack(handle[0], socket.IPPROTO_TCP, 0, STATES, handle[1:])
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


def only_at(ports: Collection[int]) -> bytes:
    """The filter by which the kernel leaves out other local ports; none for very many ranges.

    For each range: at least its first, at most its last, then jump to the end; what falls
    through jumps behind the end, which means no. (inet_diag_bc_run, net/ipv4/inet_diag.c; a
    jump forward in ``yes`` must stay below 256, so the long ones are jumps of their own.)
    """
    ranges = _ranges(ports)
    if not 0 < len(ranges) <= _MOST_RANGES:
        return b""
    length = 20 * len(ranges) + 4
    steps = b""
    for first, last in ranges:
        steps += _STEP.pack(_AT_LEAST, 8, 20) + _STEP.pack(0, 0, first)
        steps += _STEP.pack(_AT_MOST, 8, 12) + _STEP.pack(0, 0, last)
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
