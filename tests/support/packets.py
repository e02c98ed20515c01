"""IPv6 packets made by hand: extension headers and fragments as an attacker may send them."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv6Address

from tests.support.lab import Host

PAYLOAD = b"by hand!"
_HOP_BY_HOP, _UDP, _FRAGMENT, _DESTINATION_OPTIONS = 0, 17, 44, 60  # next-header numbers, IANA


def udp(source: str, target: str, port: int) -> bytes:
    """A UDP header with checksum, and the payload."""
    length = 8 + len(PAYLOAD)
    pseudo = IPv6Address(source).packed + IPv6Address(target).packed
    pseudo += struct.pack("!II", length, _UDP)
    header = struct.pack("!HHHH", 5353, port, length, 0)
    checksum = _checksum(pseudo + header + PAYLOAD)
    return struct.pack("!HHHH", 5353, port, length, checksum) + PAYLOAD


def padding(next_header: int) -> bytes:
    """A destination-options header of 8 bytes that asks for nothing."""
    return struct.pack("!BBBB4x", next_header, 0, 1, 4)  # PadN of 4


def _long_padding(next_header: int) -> bytes:
    """A destination-options header of 24 bytes that asks for nothing."""
    return struct.pack("!BBBB20x", next_header, 2, 1, 20)  # PadN of 20


def fragments(next_header: int, content: bytes, cut: int) -> list[bytes]:
    """``content`` cut in two after ``cut`` bytes (a multiple of 8), each an IPv6 payload."""
    first = struct.pack("!BBHI", next_header, 0, 1, 4711) + content[:cut]
    second = struct.pack("!BBHI", next_header, 0, cut, 4711) + content[cut:]
    return [first, second]


def send(host: Host, source: str, target: str, next_header: int, *payloads: bytes) -> None:
    """Send IPv6 packets with these payloads from a host."""
    with host.call(
        lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    ) as raw:
        for payload in payloads:
            header = struct.pack("!IHBB", 6 << 28, len(payload), next_header, 64)
            addresses = IPv6Address(source).packed + IPv6Address(target).packed
            raw.sendto(header + addresses + payload, (target, 0))


def tricks(source: str, target: str, port: int) -> dict[str, tuple[int, list[bytes]]]:
    """Ways to carry one datagram: the first next-header number, and the payloads."""
    datagram = udp(source, target, port)
    optioned = padding(_UDP) + datagram
    doubled = padding(_DESTINATION_OPTIONS) + optioned
    return {
        "plain": (_UDP, [datagram]),
        "behind options": (_DESTINATION_OPTIONS, [optioned]),
        "behind more options": (_DESTINATION_OPTIONS, [doubled]),
        "cut behind the ports": (_FRAGMENT, fragments(_UDP, datagram, 8)),
        "options, cut behind the ports": (
            _FRAGMENT,
            fragments(_DESTINATION_OPTIONS, optioned, 16),
        ),
        "cut before the ports": (_FRAGMENT, fragments(_DESTINATION_OPTIONS, optioned, 8)),
        "cut before the ports, last first": (
            _FRAGMENT,
            fragments(_DESTINATION_OPTIONS, optioned, 8)[::-1],
        ),
        **{
            f"cut inside the chain of headers after {cut}": (
                _FRAGMENT,
                fragments(_DESTINATION_OPTIONS, padding(_DESTINATION_OPTIONS) * 2 + optioned, cut),
            )
            for cut in (8, 16)
        },
        "cut after the first of two option headers": (
            _FRAGMENT,
            fragments(_DESTINATION_OPTIONS, doubled, 8),
        ),
        "cut inside the chain, last first": (
            _FRAGMENT,
            fragments(_DESTINATION_OPTIONS, doubled, 8)[::-1],
        ),
        "cut inside a long option header": (
            _FRAGMENT,
            fragments(_DESTINATION_OPTIONS, _long_padding(_UDP) + datagram, 8),
        ),
        "hop-by-hop before the fragments, cut inside the chain": (
            _HOP_BY_HOP,
            [padding(_FRAGMENT) + piece for piece in fragments(_DESTINATION_OPTIONS, doubled, 8)],
        ),
    }


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF
