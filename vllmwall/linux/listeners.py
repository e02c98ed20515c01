"""Listening sockets of one network namespace, read through sock_diag.

3,500 listeners take 3 ms; every pass reads them. Layouts: linux/inet_diag.h. `owners` in
`vllmwall.observe` finds the processes that hold them.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from vllmwall.linux import netlink
from vllmwall.model import Address, Listener, Proto

_SOCK_DIAG_BY_FAMILY = 20
_TCP_LISTEN_STATE, _UNCONNECTED_STATE = 1 << 10, 1 << 7
_ATTRIBUTE_V6ONLY = 11  # INET_DIAG_SKV6ONLY

_REQUEST = struct.Struct("=BBBxI HH 16s 16s III".replace(" ", ""))
_MESSAGE = struct.Struct("=BBBB2s2s16s16s3I5I")

_KINDS = (
    (socket.AF_INET, socket.IPPROTO_TCP, Proto.TCP, _TCP_LISTEN_STATE),
    (socket.AF_INET6, socket.IPPROTO_TCP, Proto.TCP, _TCP_LISTEN_STATE),
    (socket.AF_INET, socket.IPPROTO_UDP, Proto.UDP, _UNCONNECTED_STATE),
    (socket.AF_INET6, socket.IPPROTO_UDP, Proto.UDP, _UNCONNECTED_STATE),
)


def most_listeners(uid: int) -> int:
    """How many listeners of a user are looked at in one namespace: others must not wait for all."""
    return 4096 if uid else 16384


class SocketDump:
    """A sock_diag socket that belongs to the network namespace it was opened in.

    Open it in a thread that has entered the namespace (`vllmwall.linux.netns.run_in`); it can be
    used from any thread afterwards.
    """

    def __init__(self) -> None:
        self._socket = netlink.opened(netlink.SOCK_DIAG)
        self.sees_udp = True
        self.over: set[int] = set()
        self.namespace = os.stat("/proc/thread-self/ns/net").st_ino  # noqa: PTH116 hot, tiny

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def listeners(self, port: int = 0, only: Proto | None = None) -> list[Listener]:
        """All listening TCP and unconnected bound UDP sockets, or those of one protocol.

        ``port`` narrows in the kernel.

        Raises OSError when the kernel refuses the request. Without udp_diag no UDP socket is listed
        and ``sees_udp`` is False. ``over`` are the users with more listeners than are listed.
        """
        found: list[Listener] = []
        counts: Counter[int] = Counter()
        for family, protocol, proto, states in _KINDS:
            if only not in (None, proto):
                continue
            try:
                for part in self._dump(family, protocol, states, port):
                    found.extend(self._decode(part, proto, counts))
            except FileNotFoundError:
                if proto is not Proto.UDP:
                    raise
                self.sees_udp = False
        self.over = {uid for uid, count in counts.items() if count > most_listeners(uid)}
        return found

    def _dump(self, family: int, protocol: int, states: int, port: int) -> Iterator[bytes]:
        request = _REQUEST.pack(
            family, protocol, 0, states, socket.htons(port), 0, b"", b"", 0, 0xFFFFFFFF, 0xFFFFFFFF
        )
        return netlink.dumped(self._socket, _SOCK_DIAG_BY_FAMILY, request)

    def _decode(self, data: bytes, proto: Proto, counts: Counter[int]) -> Iterator[Listener]:
        for start, end in netlink.messages(data, _SOCK_DIAG_BY_FAMILY, _MESSAGE.size):
            fields = _MESSAGE.unpack_from(data, start)
            family, source, inode = fields[0], fields[6], fields[15]
            port = int.from_bytes(fields[4], "big")
            if port == 0 or (proto is Proto.UDP and inode == 0):
                continue
            counts[fields[14]] += 1
            if counts[fields[14]] > most_listeners(fields[14]):
                continue
            is_v6 = family == socket.AF_INET6
            yield Listener(
                namespace=self.namespace,
                proto=proto,
                port=port,
                address=_address(source, is_v6),
                inode=inode,
                uid=fields[14],
                queue_limit=fields[13] if proto is Proto.TCP else None,
                v6only=is_v6 and _v6only(data, start + _MESSAGE.size, end),
                order=inode,
            )


def _address(source: bytes, is_v6: bool) -> Address:
    return IPv6Address(source) if is_v6 else IPv4Address(source[:4])


def _v6only(data: bytes, position: int, end: int) -> bool:
    for kind, (start, stop) in netlink.spans(data, position, end):
        if kind == _ATTRIBUTE_V6ONLY:
            return any(data[start:stop])
    return False
