"""Packets made by hand with any source, and what a node's wall let through of them.

`Range` puts a table of its own before the wall and one behind it; each packet has a number (IPv4's
identification, IPv6's flow label), and what those tables have seen tells its fate. A rejected one
is told from a dropped one by the reset that comes back, which carries the number too.
"""

from __future__ import annotations

import itertools
import re
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from pyroute2 import IPRoute

from tests.support.lab import NODE, STRANGER, Lab
from vllmwall.enforce.evaluator import Packet, Verdict
from vllmwall.enforce.nftables.libnftables import Libnftables

_PATIENCE = 2.0  # seconds; a packet is through the lab's link in far less than 1 ms
_RAW = socket.IPPROTO_RAW  # the whole packet is ours to write, header and all
_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58}
_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16}
_SEEN = """
table inet watch {
    set front4 { typeof ip id; flags dynamic; size 65535; }
    set front6 { typeof ip6 flowlabel; flags dynamic; size 65535; }
    set behind4 { typeof ip id; flags dynamic; size 65535; }
    set behind6 { typeof ip6 flowlabel; flags dynamic; size 65535; }
    chain front {
        type filter hook input priority -250;
        meta nfproto ipv4 update @front4 { ip id }
        meta nfproto ipv6 update @front6 { ip6 flowlabel }
    }
    chain behind {
        type filter hook input priority 10;
        meta nfproto ipv4 update @behind4 { ip id }
        meta nfproto ipv6 update @behind6 { ip6 flowlabel }
        iif eth0 meta l4proto { tcp, udp } drop
    }
}
"""
_ANSWERED = """
table inet watch {
    set resets4 { typeof tcp ackseq; flags dynamic; size 65535; }
    set resets6 { typeof tcp ackseq; flags dynamic; size 65535; }
    chain front {
        type filter hook prerouting priority -300;
        meta nfproto ipv4 tcp flags & rst == rst update @resets4 { tcp ackseq }
        meta nfproto ipv6 tcp flags & rst == rst update @resets6 { tcp ackseq }
        meta l4proto { tcp, udp, icmp } drop
    }
}
"""


class Range:
    """The lab's node as a target, its stranger as whoever sends, under any address."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.node, self.sender = lab.node.path, lab.stranger.path
        self._nft = Libnftables()
        self._nft.run(self.node, _SEEN)
        self._nft.run(self.sender, _ANSWERED)
        lab.node.call(lambda: _all_by_way_of(STRANGER))
        lab.stranger.call(lambda: _all_by_way_of(NODE))
        self._raw = {
            family: lab.stranger.call(lambda of=of: socket.socket(of, socket.SOCK_RAW, _RAW))
            for family, of in ((4, socket.AF_INET), (6, socket.AF_INET6))
        }
        self._last = 0
        self._ports = itertools.cycle(range(1024, 65536))

    def fresh_port(self) -> int:
        """A source port that was not used lately.

        A SYN that finds what an earlier one left half open meets no guard: that socket is not a
        whole one, and has no cgroup (nft_sock_get_eval_cgroupv2, Linux 6.18).
        """
        return next(self._ports)

    def close(self) -> None:
        """Give the sockets back."""
        for each in self._raw.values():
            each.close()

    def own(self, addresses: Iterable[str]) -> None:
        """Let the node take packets to these addresses as its own."""

        def add() -> None:
            with IPRoute() as routes:
                index = routes.link_lookup(ifname="lo")[0]
                for address in addresses:
                    length, scope = (128, 0) if ":" in address else (32, 254)  # RT_SCOPE_HOST
                    routes.route(
                        "replace",
                        dst=f"{address}/{length}",
                        oif=index,
                        type="local",
                        scope=scope,
                        table=255,
                    )

        self.lab.node.call(add)

    def send(self, packets: Sequence[Packet]) -> dict[int, Packet]:
        """Send them; each by its number."""
        self._forget()
        numbered = dict(enumerate(packets, self._last + 1))
        self._last = (self._last + len(packets)) % 60000
        for number, packet in numbered.items():
            content = _whole(packet, number)
            self._raw[packet.family].sendto(content, (str(packet.destination), 0))
        return numbered

    def fates(
        self, sent: dict[int, Packet], expected: dict[int, frozenset[Verdict]]
    ) -> dict[int, Verdict]:
        """What became of those that arrived, as soon as that is ``expected``, or in the end."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            found = self._fates(sent)
            is_expected = all(found.get(number) in those for number, those in expected.items())
            if is_expected or time.monotonic() > deadline:
                return found
            time.sleep(0.005)

    def _fates(self, sent: dict[int, Packet]) -> dict[int, Verdict]:
        front = self._seen(self.node, "front")
        behind = self._seen(self.node, "behind")
        resets = self._seen(self.sender, "resets")
        found = {}
        for number, packet in sent.items():
            one = packet.family, number
            if one in front:
                blocked = Verdict.REJECT if one in resets else Verdict.DROP
                found[number] = Verdict.ACCEPT if one in behind else blocked
        return found

    def _seen(self, path: str, name: str) -> set[tuple[int, int]]:
        found = set()
        for family in (4, 6):
            text = self._nft.show(path, f"list set inet watch {name}{family}")
            _, _, elements = text.partition("elements = {")
            shift = 8 if name == "resets" else 0
            found |= {(family, int(each) >> shift) for each in re.findall(r"\d+", elements)}
        return found

    def _forget(self) -> None:
        for path, names in ((self.node, ("front", "behind")), (self.sender, ("resets",))):
            sets = (f"flush set inet watch {name}{family}\n" for name in names for family in (4, 6))
            self._nft.run(path, "".join(sets))


def _all_by_way_of(gateways: tuple[str, str]) -> None:
    """Spoofed sources and made-up destinations have no neighbours to ask for."""
    with IPRoute() as routes:
        index = routes.link_lookup(ifname="eth0")[0]
        routes.route("del", dst="0.0.0.0/0", oif=index, scope=253)
        routes.route("add", dst="0.0.0.0/0", gateway=gateways[0], oif=index, flags=4)
        routes.route("del", dst="::/0", oif=index)
        routes.route("add", dst=f"{gateways[1]}/128", oif=index)
        routes.route("add", dst="::/0", gateway=gateways[1], oif=index)


def _whole(packet: Packet, number: int) -> bytes:
    inner = _inner(packet, number)
    source, target = packet.source, packet.destination
    if isinstance(source, IPv4Address):
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(inner), number, 0, 64, _number(packet), 0)
        return head + source.packed + target.packed + inner
    head = struct.pack("!IHBB", 6 << 28 | number, len(inner), _number(packet), 64)
    return head + source.packed + target.packed + inner


def _inner(packet: Packet, number: int) -> bytes:
    if packet.proto == "tcp":
        flags = sum(_FLAGS[flag] for flag in packet.flags)
        made = struct.pack(
            "!HHIIBBHHH", packet.sport, packet.dport, number << 8, 0, 5 << 4, flags, 512, 0, 0
        )
        return _summed(packet, made, 16)
    if packet.proto == "udp":
        return _summed(packet, struct.pack("!HHHH", packet.sport, packet.dport, 8, 0), 6)
    kind = 8 if packet.proto == "icmp" else 128  # echo request
    return _summed(packet, struct.pack("!BBHHH", kind, 0, 0, number & 0xFFFF, 1), 2)


def _summed(packet: Packet, made: bytes, at: int) -> bytes:
    pseudo = b""
    if packet.proto != "icmp":
        pseudo = packet.source.packed + packet.destination.packed
        pseudo += struct.pack("!HH", _number(packet), len(made))
    words = struct.unpack(f"!{len(pseudo + made) // 2}H", pseudo + made)
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return made[:at] + struct.pack("!H", ~total & 0xFFFF or 0xFFFF) + made[at + 2 :]


def _number(packet: Packet) -> int:
    return _NUMBERS[packet.proto]


def is_plain(address: IPv4Address | IPv6Address) -> bool:
    """Whether the kernel takes packets from and to it without asking what it is for."""
    if address.version == 4:
        first = int(address) >> 24
        return 1 <= first <= 223 and first not in (127, 169) and address not in _LAB
    return (int(address) >> 125 == 1 or int(address) >> 121 == 0b1111110) and address not in _LAB


_LAB = frozenset(map(ip_address, (*NODE, *STRANGER)))
