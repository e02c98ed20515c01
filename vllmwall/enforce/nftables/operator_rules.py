"""Rules for what the operator orders: bans, lockdown, limits on the API, the kernel log. Pure.

- **Bans** come first, for every packet and not for SYNs alone: so a ban holds for UDP, for ports
  of no workload and for connections that could not be reset, without conntrack. Each packet is
  looked up in an interval set of its family. Measured against no firewall (2-core VM,
  kernel 6.18; new connections and bulk, by ratio): 0.93 and 0.90 without these rules, 0.94 and
  0.91 with them and no ban, 0.91 and 0.88 with 10,000 bans. The rules are always there, so that a
  ban is one element and no rule changes.
  ICMP passes: without it no neighbour on the link could be found (IPv6), no path MTU be learnt,
  and the failsafe ports would be closed too.
- **Lockdown** closes what has ports and no entry. TCP is judged by its SYN: answers to connections
  that this host opened pass, and so do earlier connections, which conntrack would not know. For
  UDP and the like conntrack identifies answers, which costs 6 of 100 connections a second; a
  table without lockdown has no such rule, so that nothing is tracked for it. Protocols without
  ports (ICMP, IGMP, ESP, VRRP, tunnels) pass.
- **Limits** apply to limited entries, to SYNs only, and not to peers. A full ``rate`` set ends
  its rule: further sources are not limited then, and never refused for that. ``ct count`` needs
  conntrack, so its rules exist only where ``connections`` is limited (9 of 100 connections a
  second; the rate alone costs nothing that could be measured).
- **The log** rule is in the chain ``strangers``, before the drop, and logs at most ``per_second``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from vllmwall.cidr import merged
from vllmwall.enforce.nftables.names import (
    BANNED,
    FAILSAFE,
    FAILSAFE_UDP,
    LIMITED,
    LOCKDOWN,
    OPENED,
    STRANGERS,
    banned_set,
    set_name,
)
from vllmwall.enforce.nftables.objects import Chain, Element, Meaning, Rule, Set
from vllmwall.enforce.nftables.syntax import PORT, SOURCE, SYN, map_lookups
from vllmwall.model import PEERS, KernelLog, Limits, Network, Proto, Wall

_COUNTED = 16384  # sources by family that the limits know at a time
_PER_SOURCE = {4: SOURCE[4], 6: f"{SOURCE[6]} & ffff:ffff:ffff:ffff::"}
_PORTED = "{ tcp, udp, dccp, sctp, udplite }"
_LOG = re.compile(
    r"limit rate (?P<rate>\d+)/second burst \d+ packets "
    r'log prefix "(?P<prefix>[^"]*)" group (?P<group>\d+)'
)
_RATE = re.compile(r"limit rate over (?P<rate>\d+)/second burst (?P<burst>\d+) packets")
_COUNT = re.compile(r"ct count over (?P<count>\d+)")


def network_set(name: str, family: int, networks: Iterable[Network]) -> Set:
    """The set of the networks of one family, merged."""
    ours = merged(network for network in networks if network.version == family)
    elements = tuple(Element(str(network)) for network in ours)
    return Set(name, f"type ipv{family}_addr", elements, flags=("interval",))


def sets(wall: Wall) -> Iterator[Set]:
    """The sets that the rules of this module use."""
    yield from (network_set(banned_set(family), family, wall.banned) for family in (4, 6))
    yield _port_set(FAILSAFE, wall.failsafe)
    yield _port_set(FAILSAFE_UDP, wall.failsafe_udp)
    opened = sorted(wall.opened, key=lambda one: (one[0].value, one[1]))
    elements = tuple(Element(f"{proto.value} . {port}") for proto, port in opened)
    yield Set(OPENED, f"typeof {PORT}", elements)
    yield from _limit_sets(wall.limits)


def chains(wall: Wall) -> Iterator[Chain]:
    """The chains of this module that this wall has."""
    yield Chain(BANNED, tuple(_banned()))
    if wall.limits is not None:
        yield Chain(LIMITED, tuple(_limited(wall.limits)))
    if wall.lockdown:
        yield Chain(LOCKDOWN, tuple(_lockdown()))


def ban_rules() -> Iterator[Rule]:
    """The rules that send packets of banned sources to their chain."""
    for family, source in SOURCE.items():
        yield Rule(f"{source} @{banned_set(family)} goto {BANNED}", Meaning.BANNED)


def lockdown_rules() -> Iterator[Rule]:
    """The end of the base chain where ports without an entry are closed too."""
    yield Rule(f"{SYN} goto {LOCKDOWN}", Meaning.LOCKDOWN)
    yield Rule("meta l4proto tcp accept", Meaning.ESTABLISHED)
    yield Rule(f"goto {LOCKDOWN}", Meaning.LOCKDOWN)


def log_rules(log: KernelLog | None) -> Iterator[Rule]:
    """The rule that logs a refusal."""
    if log is not None:
        burst = max(10, 2 * log.per_second)  # never 5, which versions of nft print or leave out
        yield Rule(
            f"limit rate {log.per_second}/second burst {burst} packets "
            f'log prefix "{log.prefix}" group {log.group}'
        )


def log_in(rules: Iterable[str]) -> KernelLog | None:
    """The log that the rules of the chain ``strangers`` write to."""
    for rule in rules:
        if found := _LOG.fullmatch(rule):
            return KernelLog(int(found["group"]), found["prefix"], int(found["rate"]))
    return None


def limits_in(rules: Iterable[str]) -> Limits:
    """The limits that the rules of the chain ``limited`` put on the API."""
    text = "\n".join(rules)
    rate, count = _RATE.search(text), _COUNT.search(text)
    connections = int(count["count"]) if count else None
    if rate is None:
        return Limits(connections=connections)
    return Limits(int(rate["rate"]), int(rate["burst"]), connections)


def opened_in(elements: Iterable[str]) -> Iterator[tuple[Proto, int]]:
    """The ports that elements of the set `opened` name. Raises ValueError."""
    for element in elements:
        proto, _, port = element.partition(" . ")
        yield Proto(proto), int(port)


def failsafe_rules() -> Iterator[Rule]:
    """The rules that accept what the operator must always reach."""
    yield Rule(f"tcp dport @{FAILSAFE} accept", Meaning.FAILSAFE)
    yield Rule(f"udp dport @{FAILSAFE_UDP} accept", Meaning.FAILSAFE)


def _port_set(name: str, ports: Iterable[int]) -> Set:
    return Set(name, "type inet_service", tuple(Element(str(port)) for port in sorted(ports)))


def _banned() -> Iterator[Rule]:
    yield from failsafe_rules()
    yield Rule("meta l4proto { icmp, icmpv6 } accept", Meaning.NETWORK)
    yield Rule(f"goto {STRANGERS}", Meaning.BANNED)


def _lockdown() -> Iterator[Rule]:
    yield Rule(f"meta l4proto != {_PORTED} accept", Meaning.NETWORK)
    yield Rule("meta l4proto != tcp ct state established,related accept", Meaning.ESTABLISHED)
    # DHCP: an offer answers a broadcast, so conntrack knows no flow.
    yield Rule("udp sport 67 udp dport 68 accept", Meaning.NETWORK)
    yield Rule("udp sport 547 udp dport 546 accept", Meaning.NETWORK)
    yield from map_lookups()
    yield from failsafe_rules()
    yield Rule(f"{PORT} @{OPENED} accept", Meaning.OPENED)
    yield Rule(f"goto {STRANGERS}", Meaning.LOCKDOWN)


def _limited(limits: Limits) -> Iterator[Rule]:
    for family, source in SOURCE.items():
        yield Rule(f"{source} @{set_name(PEERS, family)} accept", Meaning.TRUSTED)
    for family, source in _PER_SOURCE.items():
        if limits.new_per_second is not None:
            rate = f"limit rate over {limits.new_per_second}/second burst {limits.burst} packets"
            over = f"{SYN} update @rate{family} {{ {source} {rate} }}"
            yield Rule(f"{over} goto {STRANGERS}", Meaning.LIMIT)
    for family, source in _PER_SOURCE.items():
        if limits.connections is not None:
            over = f"{SYN} add @count{family} {{ {source} ct count over {limits.connections} }}"
            yield Rule(f"{over} goto {STRANGERS}", Meaning.LIMIT)
    yield Rule("accept", Meaning.AUDIENCE)


def _limit_sets(limits: Limits | None) -> Iterator[Set]:
    for family in (4, 6):
        typed = f"type ipv{family}_addr"
        if limits is not None and limits.new_per_second is not None:
            flags = ("dynamic", "timeout")
            yield Set(f"rate{family}", typed, size=_COUNTED, flags=flags, timeout="1m")
        if limits is not None and limits.connections is not None:
            yield Set(f"count{family}", typed, size=_COUNTED, flags=("dynamic",))
