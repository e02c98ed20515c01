"""The bytes that are sent, and what comes back, as the kernel would have them."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from vllmwall.inspect.prove.packets import answer, broken_datagram, rejected, syn
from vllmwall.model import Address, Proto

ENDS = [
    (ip_address("198.51.100.77"), ip_address("192.0.2.1")),
    (ip_address("2001:db8::77"), ip_address("2001:db8::1")),
]
PORTS = (29500, 225)


def total(source: Address, target: Address, protocol: int, content: bytes) -> int:
    """What a receiver adds up: 0xffff where the checksum is right."""
    data = source.packed + target.packed + struct.pack("!II", len(content), protocol) + content
    found = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while found >> 16:
        found = (found & 0xFFFF) + (found >> 16)
    return found


@pytest.mark.parametrize(("source", "target"), ENDS)
def test_a_syn_is_one_that_kernels_take(source: Address, target: Address) -> None:
    segment = syn(source, target, PORTS, 0xDEADBEEF)
    assert (225, 29500, 0xDEADBEEF, 0) == struct.unpack_from("!HHII", segment)
    assert 0x02 == segment[13]
    assert len(segment) == (segment[12] >> 4) * 4
    assert 0xFFFF == total(source, target, 6, segment)


@pytest.mark.parametrize(("source", "target"), ENDS)
@pytest.mark.parametrize("port", range(1, 65536, 1999))
def test_no_kernel_delivers_the_datagram(source: Address, target: Address, port: int) -> None:
    """Its checksum is wrong, and is not the zero that means none."""
    datagram = broken_datagram(source, target, (port, 225))
    assert 8 == len(datagram) == struct.unpack_from("!4xH", datagram)[0]
    assert 0 != struct.unpack_from("!6xH", datagram)[0]
    assert 0xFFFF != total(source, target, 17, datagram)


def segment(flags: int) -> bytes:
    return struct.pack("!HHIIBBHHH", 29500, 225, 1, 1, 5 << 4, flags, 0, 0, 0)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [(0x12, True), (0x14, False), (0x04, False), (0x10, None), (0x02, None), (0x11, None)],
)
def test_only_a_syn_with_ack_or_a_reset_is_an_answer(flags: int, expected: bool | None) -> None:
    found = answer(segment(flags))
    assert found == (None if expected is None else (PORTS, expected))


def test_what_is_cut_off_is_no_answer() -> None:
    assert answer(segment(0x12)[:19]) is None
    assert rejected(b"", 4) is None
    assert rejected(bytes([3, 1]) + bytes(10), 4) is None


@pytest.mark.parametrize(("source", "target"), ENDS)
def test_an_icmp_message_names_the_packet_that_was_turned_away(
    source: Address, target: Address
) -> None:
    ports = struct.pack("!HH4x", 225, 29500)
    if source.version == 4:
        inner = struct.pack("!B8xB2x", 0x45, 6) + source.packed + target.packed
        message = bytes([3, 13]) + bytes(6) + inner + ports
    else:
        inner = struct.pack("!IHBB", 6 << 28, 20, 6, 64) + source.packed + target.packed
        message = bytes([1, 1]) + bytes(6) + inner + ports
    assert (target, Proto.TCP, PORTS) == rejected(message, source.version)
    assert rejected(bytes([8]) + message[1:], source.version) is None
