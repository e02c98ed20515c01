"""IP packets of every shape that a stranger may send, and how nf_tables reads them.

A shape is one datagram or segment in one packet or several: options, extension headers, fragments
in any order, tunnels. Each packet has a number of its own where its fragments can differ (IPv6:
the flow label); an IPv4 datagram has one for all (its identification), since it is whole again
before any hook that matters.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import count, pairwise
from random import Random

from vllmwall.enforce.evaluator import Packet

TCP, UDP, UDPLITE, IPIP, IPV6, GRE, NONE = 6, 17, 136, 4, 41, 47, 59
HOP_BY_HOP, ROUTING, FRAGMENT, AUTH, OPTIONS = 0, 43, 44, 51, 60
_MORE = 1  # of a fragment's offset field: others follow
_EXTENSIONS = {HOP_BY_HOP, ROUTING, FRAGMENT, AUTH, OPTIONS, NONE}
_NAMES = {TCP: "tcp", UDP: "udp", UDPLITE: "udplite", 1: "icmp", 58: "ipv6-icmp"}
_TUNNELS = {4: (IPIP, IPV6, GRE), 6: (IPV6, IPIP, GRE)}
_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}
_SYNS = [("syn",)] * 6 + [("syn", "ecn", "cwr"), ("syn", "psh", "urg")]


@dataclass
class Shape:
    """What was sent: ``marker`` is in its payload; ``packets`` are whole, by their number."""

    marker: bytes
    packets: dict[int, bytes] = field(default_factory=dict)
    is_whole: bool = True


@dataclass
class Shapes:
    """Makes them from ``source`` to ``target``; the same seed makes the same."""

    random: Random
    source: dict[int, str]
    target: dict[int, str]
    ports: tuple[int, ...]
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def some(self, number: int) -> list[Shape]:
        """So many."""
        return [self._shape() for _ in range(number)]

    def _shape(self) -> Shape:
        marker = struct.pack("!I", next(self._numbers))
        version = self.random.choice((4, 6, 6))
        kind, content = self._transport(version, marker)
        if self.random.random() < 0.1:
            kind, content = self._tunnelled(version, kind, content)
        return (self._four if version == 4 else self._six)(marker, kind, content)

    def _transport(self, version: int, marker: bytes) -> tuple[int, bytes]:
        kind = self.random.choice((TCP, TCP, UDP, UDP, UDPLITE))
        sport, dport = self.random.randint(1024, 65535), self.random.choice(self.ports)
        payload = b"stranger" + marker + bytes(self.random.choice((0, 4, 40, 200)))
        if kind == TCP:
            words = self.random.choice((5, 6, 8, 15))
            flags = sum(_FLAGS[one] for one in self.random.choice(_SYNS))
            options = self._tcp_options(4 * (words - 5))
            head = struct.pack("!HH4sIBBHHH", sport, dport, marker, 0, words << 4, flags, 512, 0, 0)
            return kind, self._summed(version, kind, head + options, payload, 16)
        length = 8 + len(payload)
        head = struct.pack("!HHHH", sport, dport, length, 0)
        return kind, self._summed(version, kind, head, payload, 6)

    def _tcp_options(self, length: int) -> bytes:
        """No-operations, among them MPTCP's MP_CAPABLE (RFC 8684) where it has room."""
        if length >= 4 and self.random.random() < 0.5:
            return bytes([30, 4, 0x01, 0x01]) + b"\x01" * (length - 4)
        return b"\x01" * length

    def _summed(self, version: int, kind: int, head: bytes, payload: bytes, at: int) -> bytes:
        data = head + payload
        addresses = (
            ip_address(self.source[version]).packed + ip_address(self.target[version]).packed
        )
        total = _sum(addresses + struct.pack("!II", len(data), kind) + data)
        return data[:at] + struct.pack("!H", ~total & 0xFFFF or 0xFFFF) + data[at + 2 :]

    def _tunnelled(self, version: int, kind: int, content: bytes) -> tuple[int, bytes]:
        tunnel = self.random.choice(_TUNNELS[version])
        inner = 6 if tunnel == IPV6 else 4 if tunnel == IPIP else version
        inside = header(inner, self.source, self.target, kind, content, 0)
        types = {4: 0x0800, 6: 0x86DD}
        return tunnel, (struct.pack("!HH", 0, types[inner]) if tunnel == GRE else b"") + inside

    def _four(self, marker: bytes, kind: int, content: bytes) -> Shape:
        number = next(self._numbers)
        options = self._ip_options()
        shape = Shape(marker)
        pieces = self._pieces(content)
        shape.is_whole = len(pieces) == 1
        for order, (offset, piece, more) in enumerate(pieces):
            place = offset // 8 | more << 13
            raw = header(4, self.source, self.target, kind, piece, number, place, options)
            shape.packets[number + (order << 16)] = raw
        return shape

    def _ip_options(self) -> bytes:
        source = ip_address(self.target[4]).packed
        return self.random.choice(
            [b""] * 6
            + [
                b"\x01" * 4,
                b"\x94\x04\0\0",  # router alert
                b"\x07\x07\x04" + bytes(4) + b"\0",  # record route
                b"\x44\x08\x05\0" + bytes(4),  # time stamps
                b"\x83\x07\x04" + source + b"\0",  # loose source route
                b"\x01" * 40,
            ]
        )

    def _six(self, marker: bytes, kind: int, content: bytes) -> Shape:
        kind, content = self._chained(kind, content)
        before, content_kind, shape = b"", kind, Shape(marker)
        is_cut = self.random.random() < 0.6
        outer = kind
        if is_cut:
            outer = FRAGMENT
        has_hop = self.random.random() < 0.15
        if has_hop:
            before, outer = _options(outer, 8), HOP_BY_HOP
        pieces = self._pieces(content) if is_cut else [(0, content, 0)]
        shape.is_whole = len(pieces) == 1
        identification = self.random.getrandbits(32)
        for offset, piece, more in pieces:
            head = b""
            if is_cut:
                head = struct.pack("!BBHI", content_kind, 0, offset | more, identification)
            number = next(self._numbers)
            whole = before + head + piece
            shape.packets[number] = header(6, self.source, self.target, outer, whole, number)
        return shape

    def _chained(self, kind: int, content: bytes) -> tuple[int, bytes]:
        """Extension headers before the content, of which some end the chain for some reader."""
        if self.random.random() < 0.1:
            return self._confusing(kind, content)
        for _ in range(self.random.choice((0, 0, 1, 1, 2, 3, 5))):
            found = self.random.choice((OPTIONS,) * 5 + (FRAGMENT,) * 3 + (ROUTING, AUTH, 135, 253))
            if found == FRAGMENT:
                content = struct.pack("!BBHI", kind, 0, 0, self.random.getrandbits(32)) + content
            elif found == AUTH:
                content = struct.pack("!BBHIII", kind, 4, 0, 1, 1, 0) + bytes(8) + content
            elif found == ROUTING:
                content = (
                    struct.pack("!BBBB4x", kind, 0, self.random.choice((0, 2, 4)), 0) + content
                )
            else:
                content = _options(kind, self.random.choice((8, 8, 16, 24))) + content
            kind = found
        return kind, content

    def _confusing(self, kind: int, content: bytes) -> tuple[int, bytes]:
        """A fragment header that is none, between a header that is true and one that is not."""
        content = _options(kind, self.random.choice((8, 16))) + content
        unknown = self.random.choice((135, 139, 253, AUTH))
        content = struct.pack("!BBHI", unknown, 0, 0, self.random.getrandbits(32)) + content
        return OPTIONS, _options(FRAGMENT, self.random.choice((8, 16, 24))) + content

    def _pieces(self, content: bytes) -> list[tuple[int, bytes, int]]:
        """Offset, bytes, and whether more follow; mostly one, else cut anywhere, in any order."""
        blocks = max(1, (len(content) - 1) // 8)
        if self.random.random() < 0.3:
            return [(0, content, 0)]
        few = min(blocks, self.random.choice((1, 1, 2, 3)))
        # Most tricks are in the first headers.
        nearby = range(1, min(blocks, self.random.choice((4, 8, 64))) + 1)
        cuts = sorted(8 * one for one in self.random.sample(nearby, min(few, len(nearby))))
        edges = [0, *cuts, len(content)]
        found = [
            (start, content[start:end], _MORE if end < len(content) else 0)
            for start, end in pairwise(edges)
            if start < end
        ]
        if self.random.random() < 0.4:
            self.random.shuffle(found)
        return found


def seen_by_nft(raw: bytes) -> Packet | None:
    """The packet as an nft rule sees it at the hook input; None: this model does not say.

    As nft_set_pktinfo_ipv4 and _ipv6 (net/netfilter/nf_tables_core.h, ipv6_find_hdr): the
    protocol is empty where no transport header is found, the ports are None in later fragments.
    """
    if raw[0] >> 4 == 4:
        source, target = IPv4Address(raw[12:16]), IPv4Address(raw[16:20])
        return _packet(source, target, raw[9], raw[4 * (raw[0] & 15) :])
    ends = IPv6Address(raw[8:24]), IPv6Address(raw[24:40])
    kind, place, shifted = _end_of_chain(raw)
    if kind is None:
        return Packet(*ends, "", flags=frozenset(), shifted=shifted)
    found = _packet(*ends, kind, raw[place:])
    return replace(found, shifted=shifted) if found else None


def _end_of_chain(raw: bytes) -> tuple[int | None, int, bool]:
    """The transport protocol, its place (behind the packet: in a later fragment), and whether a
    fragment header comes behind another one. None: it cannot be found."""
    kind, place, shifted = raw[6], 40, False
    while kind in _EXTENSIONS and kind != NONE:
        if place + 2 > len(raw):
            return None, place, shifted
        if kind == AUTH:
            return kind, place, shifted or _has_fragment_header(raw, place, kind)
        following, length = raw[place], 8 * raw[place + 1] + 8
        if kind == FRAGMENT:
            if place + 4 > len(raw):
                return None, place, shifted
            shifted = shifted or raw[6] != FRAGMENT
            if int.from_bytes(raw[place + 2 : place + 4], "big") & ~7:
                is_end = following not in _EXTENSIONS or following == NONE
                return following if is_end else None, len(raw), shifted
            length = 8
        kind, place = following, place + length
    return kind, place, shifted


def _has_fragment_header(raw: bytes, place: int, kind: int) -> bool:
    """Behind an authentication header, where nft does not look for ports but for headers."""
    while kind in _EXTENSIONS and kind != NONE and place + 2 <= len(raw):
        if kind == FRAGMENT:
            return raw[6] != FRAGMENT
        length = 4 * raw[place + 1] + 8 if kind == AUTH else 8 * raw[place + 1] + 8
        kind, place = raw[place], place + length
    return False


def _packet(
    source: IPv4Address | IPv6Address,
    target: IPv4Address | IPv6Address,
    kind: int,
    content: bytes,
) -> Packet | None:
    name = _NAMES.get(kind, str(kind))
    if kind not in (TCP, UDP, UDPLITE) or len(content) < 4:
        return Packet(source, target, name, flags=frozenset())
    sport, dport = struct.unpack_from("!HH", content)
    if kind == TCP and len(content) < 14:
        return None
    flags = (name for name, bit in _FLAGS.items() if kind == TCP and content[13] & bit)
    return Packet(source, target, name, dport, sport, frozenset(flags))


def _options(following: int, length: int) -> bytes:
    """An extension header of that many bytes that asks for nothing (PadN)."""
    return struct.pack("!BBBB", following, length // 8 - 1, 1, length - 4) + bytes(length - 4)


def header(  # noqa: PLR0917 as the fields follow each other
    version: int,
    source: dict[int, str],
    target: dict[int, str],
    kind: int,
    content: bytes,
    number: int,
    place: int = 0,
    options: bytes = b"",
) -> bytes:
    """A whole packet. ``place``: the fragment's offset field, of IPv4."""
    ends = _ends(version, source, target)
    if version == 6:
        return struct.pack("!IHBB", 6 << 28 | number, len(content), kind, 64) + ends + content
    words = 5 + len(options) // 4
    length = 4 * words + len(content)
    head = struct.pack("!BBHHHBBH", 4 << 4 | words, 0, length, number, place, 64, kind, 0)
    total = ~_sum(head + ends + options) & 0xFFFF
    return head[:10] + struct.pack("!H", total) + ends + options + content


def _ends(version: int, source: dict[int, str], target: dict[int, str]) -> bytes:
    return ip_address(source[version]).packed + ip_address(target[version]).packed


def checked(content: bytes, pseudo: bytes = b"") -> bytes:
    """An ICMP message with its checksum."""
    total = ~_sum(pseudo + content) & 0xFFFF
    return content[:2] + struct.pack("!H", total) + content[4:]


def _sum(data: bytes) -> int:
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
