"""The bytes of probes, and the meaning of replies. Pure.

Neither kind reaches a program. The kernel answers a SYN, and since no socket sent it, the sender's
kernel resets the half-open connection: accept() never returns. A datagram with a wrong checksum
passes firewalls, which do not verify it, and the kernel drops it before recv() (udp(7)).
Layouts: RFC 9293, RFC 768, RFC 8200.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

from vllmwall.model import Address, Proto

_TCP = struct.Struct("!HHIIBBHHH4s")
_UDP = struct.Struct("!HHHH")
_PORTS = struct.Struct("!HH")
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_OFFSET = 6 << 4  # words: the header and one option
_MSS = struct.pack("!BBH", 2, 4, 1400)
_IPV6_HEADER = 40
_UNREACHABLE = {4: 3, 6: 1}  # ICMP and ICMPv6: destination unreachable
_WRONG = 0x5555

Ports = tuple[int, int]
"""Theirs and ours."""


def syn(source: Address, target: Address, ports: Ports, sequence: int) -> bytes:
    """The first segment of a connection from ``ports[1]`` to ``ports[0]``."""
    theirs, ours = ports

    def segment(checksum: int) -> bytes:
        return _TCP.pack(ours, theirs, sequence, 0, _OFFSET, _SYN, 64240, checksum, 0, _MSS)

    return segment(_checksum(source, target, socket.IPPROTO_TCP, segment(0)))


def broken_datagram(source: Address, target: Address, ports: Ports) -> bytes:
    """An empty datagram that no kernel delivers: its checksum is wrong."""
    theirs, ours = ports
    empty = _UDP.pack(ours, theirs, _UDP.size, 0)
    right = _checksum(source, target, socket.IPPROTO_UDP, empty)
    return _UDP.pack(ours, theirs, _UDP.size, (right ^ _WRONG) or _WRONG)  # 0 means: none


def answer(segment: bytes) -> tuple[Ports, bool] | None:
    """The ports of a reply, and whether the port is open; None: not a reply to a SYN."""
    if len(segment) < 20:
        return None
    theirs, ours = _PORTS.unpack_from(segment)
    flags = segment[13]
    if flags & _RST:
        return (theirs, ours), False
    return ((theirs, ours), True) if flags & (_SYN | _ACK) == _SYN | _ACK else None


def rejected(message: bytes, family: int) -> tuple[Address, Proto, Ports] | None:
    """The packet of ours that an ICMP message rejects; None: it is about something else."""
    if len(message) < 8 or message[0] != _UNREACHABLE[family]:
        return None
    inner = message[8:]
    if family == 4:
        start, number, address = ip_header(inner), inner[9:10], inner[16:20]
    else:
        start, number, address = _IPV6_HEADER, inner[6:7], inner[24:40]
    if len(inner) < max(start + _PORTS.size, 20) or number[0] not in (6, 17):
        return None
    ours, theirs = _PORTS.unpack_from(inner, start)
    target: Address = IPv4Address(address) if family == 4 else IPv6Address(address)
    return target, Proto.TCP if number[0] == 6 else Proto.UDP, (theirs, ours)


def ip_header(packet: bytes) -> int:
    """The length of an IPv4 header."""
    return (packet[0] & 0x0F) * 4 if packet else 0


def _checksum(source: Address, target: Address, protocol: int, content: bytes) -> int:
    pseudo = source.packed + target.packed + struct.pack("!II", len(content), protocol)
    data = pseudo + content + bytes(len(content) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF
