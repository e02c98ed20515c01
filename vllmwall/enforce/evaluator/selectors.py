"""Selectors of nft rules (``ip saddr``, ``th dport``): their value in a packet, and its notation.

A selector returns None where the kernel cannot load it (no such header, no socket): the rule
does not match then, whatever it compares with (NFT_BREAK).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass

from vllmwall.enforce.evaluator.packet import Packet
from vllmwall.model import Address

Value = int | str
Range = tuple[Value, Value]

# /etc/protocols; minimal systems have none
_PROTOCOLS = {
    "icmp": 1,
    "igmp": 2,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "ipv6-icmp": 58,
    "sctp": 132,
    "udplite": 136,
}
_FAMILIES = {"ipv4": 2, "ipv6": 10}  # NFPROTO_*, linux/netfilter.h
_STATES = ("invalid", "established", "related", "new", "untracked")
_CGROUP = re.compile(r"socket cgroupv2 level (\d+)")


class UndecidedError(Exception):
    """The value of a selector is not known of a packet that was not sent."""


@dataclass(frozen=True)
class Selector:
    """``load`` reads it from a packet; ``read`` makes a range of what nft prints, or raises
    ValueError."""

    load: Callable[[Packet], Value | None]
    read: Callable[[str], Range]


def selector(text: str) -> Selector | None:
    """The selector that these words name; None: not known."""
    if found := _CGROUP.fullmatch(text):
        return Selector(_ancestor(int(found[1])), _numbers)
    return _SELECTORS.get(text) or EXTRA.get(text)


def protocol(name: str) -> int:
    """The number of a protocol. Raises ValueError."""
    return _PROTOCOLS[name] if name in _PROTOCOLS else int(name)


def _protocols(text: str) -> Range:
    """A protocol by name or number, or a range of numbers."""
    number = _PROTOCOLS.get(text)
    return _numbers(text) if number is None else (number, number)


def _l4proto(packet: Packet) -> int | None:
    return protocol(packet.proto) if packet.proto else None


def _ancestor(level: int) -> Callable[[Packet], Value | None]:
    return lambda packet: packet.socket.cgroups.get(level) if packet.socket else None


def _address(family: int, of: Callable[[Packet], Address]) -> Selector:
    """By hand: walls can have thousands of networks, and `ip_network` takes ten times as long."""
    kind, bits = (socket.AF_INET, 32) if family == 4 else (socket.AF_INET6, 128)

    def number(text: str) -> int:
        try:
            return int.from_bytes(socket.inet_pton(kind, text), "big")
        except OSError as error:
            raise ValueError(text) from error

    def read(text: str) -> Range:
        first, dash, last = text.partition("-")
        if dash:
            return number(first), number(last)
        address, slash, length = text.partition("/")
        low, free = number(address), bits - int(length) if slash else 0
        if free < 0 or low & (1 << free) - 1:
            raise ValueError(text)
        return low, low | (1 << free) - 1

    return Selector(lambda packet: int(of(packet)) if packet.family == family else None, read)


def _port(of: Callable[[Packet], int | None], proto: str = "") -> Selector:
    """nft asks for the protocol first, where the words name one (`tcp dport`)."""
    return Selector(
        lambda packet: of(packet) if proto in ("", packet.proto) else None,
        _numbers,
    )


def _numbers(text: str) -> Range:
    first, dash, last = text.partition("-")
    return int(first), int(last if dash else first)


def _one(of: Callable[[str], Value]) -> Callable[[str], Range]:
    def read(text: str) -> Range:
        value = of(text)
        return value, value

    return read


def _loopback(text: str) -> str:
    """A packet to be evaluated came over lo or not; its other interfaces are unknown."""
    if text.strip('"') != "lo":
        raise ValueError(text)
    return "lo"


def _family(text: str) -> int:
    if text not in _FAMILIES:
        raise ValueError(text)
    return _FAMILIES[text]


def _state(text: str) -> str:
    if text not in _STATES:
        raise ValueError(text)
    return text


def _word(known: str) -> Callable[[str], str]:
    """The one word that is understood."""

    def read(text: str) -> str:
        if text != known:
            raise ValueError(text)
        return text

    return read


def _first_address(family: int) -> Selector:
    def load(packet: Packet) -> int | None:
        is_ours = packet.first is not None and packet.family == family
        return int(packet.first[0]) if packet.first is not None and is_ours else None

    return Selector(load, _address(family, lambda packet: packet.destination).read)


def _transparent(packet: Packet) -> int | None:
    return int(packet.socket.transparent) if packet.socket else None


_SELECTORS = {
    "ip saddr": _address(4, lambda packet: packet.source),
    "ip6 saddr": _address(6, lambda packet: packet.source),
    "ip daddr": _address(4, lambda packet: packet.destination),
    "ip6 daddr": _address(6, lambda packet: packet.destination),
    "th dport": _port(lambda packet: packet.dport),
    "th sport": _port(lambda packet: packet.sport),
    "tcp dport": _port(lambda packet: packet.dport, "tcp"),
    "tcp sport": _port(lambda packet: packet.sport, "tcp"),
    "udp dport": _port(lambda packet: packet.dport, "udp"),
    "udp sport": _port(lambda packet: packet.sport, "udp"),
    "meta l4proto": Selector(_l4proto, _protocols),
    "meta nfproto": Selector(lambda packet: _FAMILIES[f"ipv{packet.family}"], _one(_family)),
    "meta sdif": Selector(lambda packet: packet.slave, _numbers),
    "iif": Selector(lambda packet: packet.interface, _one(_loopback)),
    "socket transparent": Selector(_transparent, _numbers),
    "ct status": Selector(lambda packet: "dnat" if packet.first else "", _one(_word("dnat"))),
    "ct direction": Selector(lambda _: "original", _one(_word("original"))),
    "ct original ip daddr": _first_address(4),
    "ct original ip6 daddr": _first_address(6),
    "ct original proto-dst": _port(lambda packet: packet.first[1] if packet.first else None),
    "ct state": Selector(lambda packet: packet.state, _one(_state)),
}
WORDS = "|".join(
    [*sorted(map(re.escape, _SELECTORS), key=len, reverse=True), r"socket cgroupv2 level \d+"]
)


def _mark(packet: Packet) -> int:
    mark = getattr(packet, "mark", None)
    if not isinstance(mark, int):
        raise UndecidedError
    return mark


def _interface(packet: Packet) -> str:
    if packet.interface != "lo":
        raise UndecidedError
    return "lo"


def _undecided(_: Packet) -> Value:
    raise UndecidedError


def _constant(value: Value) -> Selector:
    """What is the same of every packet that `explain` asks about."""
    return Selector(lambda packet: value, _one(lambda text: text.strip('"')))


def _of_family(family: int) -> Callable[[Packet], Value | None]:
    return lambda packet: protocol(packet.proto) if packet.family == family else None


def _of_icmp(packet: Packet) -> Value | None:
    """Types and codes; a packet of TCP or UDP has none."""
    return None if packet.proto in ("tcp", "udp") else _undecided(packet)


EXTRA = {
    "meta mark": Selector(_mark, _one(lambda text: int(text, 0))),
    "mark": Selector(_mark, _one(lambda text: int(text, 0))),
    "iif": Selector(_interface, _one(lambda text: text.strip('"'))),
    "iifname": Selector(_interface, _one(lambda text: text.strip('"'))),
    "oif": _constant(""),
    "oifname": _constant(""),
    "ip version": Selector(lambda packet: 4 if packet.family == 4 else None, _numbers),
    "ip6 version": Selector(lambda packet: 6 if packet.family == 6 else None, _numbers),
    "ip protocol": Selector(_of_family(4), _protocols),
    "ip6 nexthdr": Selector(_of_family(6), _protocols),
    "meta protocol": Selector(
        lambda packet: "ip" if packet.family == 4 else "ip6", _one(lambda text: text)
    ),
    "fib daddr type": _constant("local"),
    "fib saddr type": _constant("unicast"),
    "meta pkttype": _constant("host"),
    "ct status": _constant(""),
    "ct direction": _constant("original"),
    "icmp type": Selector(_of_icmp, _one(lambda text: text)),
    "icmp code": Selector(_of_icmp, _one(lambda text: text)),
    "icmpv6 type": Selector(_of_icmp, _one(lambda text: text)),
    "icmpv6 code": Selector(_of_icmp, _one(lambda text: text)),
    "ct mark": Selector(_undecided, _one(lambda text: text)),
    "ether saddr": Selector(_undecided, _one(lambda text: text)),
}
"""Selectors in the rules of other programs, for packets from outside that nobody has sent yet. Not
for our own table, whose verdict is the kernel's."""
