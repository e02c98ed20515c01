"""Echo requests made by hand, of any size."""

from __future__ import annotations

import os
import socket
import struct
import time

from tests.support.lab import Host

_PATIENCE = 1.0
_REQUEST = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}  # type of request, of reply


def pings(host: Host, address: str, size: int = 56) -> bool:
    """Whether a host gets an echo from an address. ICMPv6 needs no checksum from us."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    proto = socket.IPPROTO_ICMPV6 if ":" in address else socket.IPPROTO_ICMP
    request, reply = _REQUEST[family]
    token = os.urandom(8)
    body = struct.pack("!HH", os.getpid() & 0xFFFF, 1) + token + bytes(size)
    with host.call(lambda: socket.socket(family, socket.SOCK_RAW, proto)) as raw:
        checksum = _checksum(struct.pack("!BBH", request, 0, 0) + body)
        raw.sendto(struct.pack("!BBH", request, 0, checksum) + body, (address, 0))
        deadline = time.monotonic() + _PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            raw.settimeout(left)
            try:
                found = raw.recv(65536)
            except TimeoutError:
                return False
            header = 0 if family == socket.AF_INET6 else 4 * (found[0] & 15)
            if found[header] == reply and token in found:
                return True
    return False


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
