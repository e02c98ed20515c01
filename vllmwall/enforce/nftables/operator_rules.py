"""The operator's orders in the table: bans, lockdown, limits on the API, the log. Pure.

- **Bans** come first, for every packet and not for SYNs alone: so a ban holds for UDP, for ports
  that are no workload's and for connections that could not be reset, without conntrack. An
  interval set is asked for each packet of either family. Measured beside no firewall (2-core VM,
  kernel 6.18; new connections and bulk, by ratio): 0.93 and 0.90 without these rules, 0.94 and
  0.91 with them and no ban, 0.91 and 0.88 with 10,000 bans. The rules are always there, so that a
  ban is one element and no rule changes.
  ICMP passes: without it no neighbour on the link could be found (IPv6), no path MTU be learnt,
  and the failsafe ports would be closed too.
- **Lockdown** closes what has ports and no entry. TCP is judged by its SYN: answers to what this
  host opened pass, and so do connections from before, which conntrack would not know. For
  UDP and the like conntrack tells answers apart, which costs 6 of 100 connections a second; a
  table without lockdown has no such rule, so that nothing is tracked for it. What has no ports
  (ICMP, IGMP, ESP, VRRP, tunnels) passes.
- **Limits** are asked at limited entries, for SYNs alone, peers excepted. A full ``rate`` set ends
  its rule: who comes then is not limited, and never is anybody refused for that. ``ct count`` needs
  conntrack, so its rules are there only where ``connections`` is limited (9 of 100 connections a
  second; the rate alone costs nothing that could be measured).
- **The log** stands in `strangers`, before the drop, and says no more than ``per_second``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from vllmwall.cidr import merged
from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.nftables.names import BANNED, LIMITED, LOCKDOWN, STRANGERS, set_name
from vllmwall.enforce.nftables.syntax import PORT, SOURCE, SYN, block, filled, verdicts
from vllmwall.model import PEERS, KernelLog, Limits, Network, Proto, Wall

FAILSAFE = "failsafe"
FAILSAFE_UDP = "failsafe_udp"
OPENED = "opened"

_COUNTED = 16384  # sources by family that the limits know at a time
_PER_SOURCE = {4: SOURCE[4], 6: f"{SOURCE[6]} & ffff:ffff:ffff:ffff::"}
_PORTED = "{ tcp, udp, dccp, sctp, udplite }"
_LOG = re.compile(
    r"limit rate (?P<rate>\d+)/second burst \d+ packets "
    r'log prefix "(?P<prefix>[^"]*)" group (?P<group>\d+)'
)
_RATE = re.compile(r"limit rate over (?P<rate>\d+)/second burst (?P<burst>\d+) packets")
_COUNT = re.compile(r"ct count over (?P<count>\d+)")
_PREFIX = re.compile(r"[A-Za-z0-9 ._:/-]{1,64}")  # the kernel keeps up to 127 bytes
_MOST = 1_000_000


def banned_set(family: int) -> str:
    """The set of banned sources of a family."""
    return f"banned{family}"


def network_elements(networks: Iterable[Network], family: int) -> list[str]:
    """The networks of one family as elements, merged."""
    ours = [network for network in networks if network.version == family]
    return [str(network) for network in merged(ours)]


def sets(wall: Wall) -> Iterator[str]:
    """What the rules of this module look things up in."""
    for family in (4, 6):
        lines = [f"type ipv{family}_addr", "flags interval"]
        yield block(
            "set",
            banned_set(family),
            [*lines, *filled(network_elements(wall.banned, family))],
        )
    yield block("set", FAILSAFE, _ports(wall.failsafe))
    yield block("set", FAILSAFE_UDP, _ports(wall.failsafe_udp))
    doors = sorted(wall.opened, key=lambda door: (door[0].value, door[1]))
    opened = [f"{proto.value} . {port}" for proto, port in doors]
    yield block("set", OPENED, [f"typeof {PORT}", *filled(opened)])
    yield from _limit_sets(wall.limits)


def chains(wall: Wall) -> Iterator[str]:
    """The chains of this module that this wall has."""
    yield block("chain", BANNED, _banned())
    if wall.limits is not None:
        yield block("chain", LIMITED, _limited(wall.limits))
    if wall.lockdown:
        yield block("chain", LOCKDOWN, _lockdown())


def ban_rules() -> Iterator[str]:
    """Who is banned comes to the door and no further."""
    for family, source in SOURCE.items():
        yield f"{source} @{banned_set(family)} goto {BANNED}"


def lockdown_rules() -> Iterator[str]:
    """What follows the rules of every wall where ports without an entry are closed too."""
    yield f"{SYN} goto {LOCKDOWN}"
    yield "meta l4proto tcp accept"
    yield f"goto {LOCKDOWN}"


def log_rules(log: KernelLog | None) -> Iterator[str]:
    """What tells the kernel's log of a refusal."""
    if log is not None:
        burst = max(10, 2 * log.per_second)  # never 5, which versions of nft print or leave out
        yield (
            f"limit rate {log.per_second}/second burst {burst} packets "
            f'log prefix "{log.prefix}" group {log.group}'
        )


def log_in(rules: Iterable[str]) -> KernelLog | None:
    """The log that the rules of `strangers` tell."""
    for rule in rules:
        if found := _LOG.fullmatch(rule):
            return KernelLog(int(found["group"]), found["prefix"], int(found["rate"]))
    return None


def limits_in(blocks: Mapping[str, tuple[str, ...]]) -> Limits | None:
    """The limits that a table's blocks put on the API."""
    rules = blocks.get(f"chain {LIMITED}")
    if rules is None:
        return None
    text = "\n".join(rules)
    rate, count = _RATE.search(text), _COUNT.search(text)
    connections = int(count["count"]) if count else None
    if rate is None:
        return Limits(connections=connections)
    return Limits(int(rate["rate"]), int(rate["burst"]), connections)


def opened_in(elements: Iterable[str]) -> Iterator[tuple[Proto, int]]:
    """The doors that elements of the set `opened` name. Raises ValueError."""
    for element in elements:
        proto, _, port = element.partition(" . ")
        yield Proto(proto), int(port)


def check(wall: Wall) -> None:
    """Raise EnforceError for orders that nft could read as something else."""
    log, limits = wall.log, wall.limits
    if log is not None:
        if not _PREFIX.fullmatch(log.prefix):
            raise EnforceError(f"the log's prefix {log.prefix!r} may not go into a ruleset")
        _check_number("log.group", log.group, range(65536))
        _check_number("log.per_second", log.per_second, range(1, _MOST))
    for value in (limits.new_per_second, limits.burst, limits.connections) if limits else ():
        if value is not None:
            _check_number("a limit", value, range(1, _MOST))
    if limits is None and any(entry.limited for entry in wall.entries):
        raise EnforceError("the wall has limited entries and no limits")


def _check_number(name: str, value: int, allowed: range) -> None:
    if value not in allowed:
        raise EnforceError(f"{name} {value} is not between {allowed.start} and {allowed.stop - 1}")


def _ports(ports: Iterable[int]) -> list[str]:
    return ["type inet_service", *filled(str(port) for port in sorted(ports))]


def _failsafe() -> Iterator[str]:
    yield f"tcp dport @{FAILSAFE} accept"
    yield f"udp dport @{FAILSAFE_UDP} accept"


def _banned() -> Iterator[str]:
    yield from _failsafe()
    yield "meta l4proto { icmp, icmpv6 } accept"
    yield f"goto {STRANGERS}"


def _lockdown() -> Iterator[str]:
    yield f"meta l4proto != {_PORTED} accept"
    yield "meta l4proto != tcp ct state established,related accept"
    yield "udp sport 67 udp dport 68 accept"  # DHCP: an offer answers a broadcast, so no flow
    yield "udp sport 547 udp dport 546 accept"
    yield from verdicts()
    yield from _failsafe()
    yield f"{PORT} @{OPENED} accept"
    yield f"goto {STRANGERS}"


def _limited(limits: Limits) -> Iterator[str]:
    for family, source in SOURCE.items():
        yield f"{source} @{set_name(PEERS, family)} accept"
    for family, source in _PER_SOURCE.items():
        if limits.new_per_second is not None:
            rate = f"limit rate over {limits.new_per_second}/second burst {limits.burst} packets"
            yield f"{SYN} update @rate{family} {{ {source} {rate} }} goto {STRANGERS}"
    for family, source in _PER_SOURCE.items():
        if limits.connections is not None:
            count = f"ct count over {limits.connections}"
            yield f"{SYN} add @count{family} {{ {source} {count} }} goto {STRANGERS}"
    yield "accept"


def _limit_sets(limits: Limits | None) -> Iterator[str]:
    for family in (4, 6):
        known = [f"type ipv{family}_addr", f"size {_COUNTED}"]
        if limits is not None and limits.new_per_second is not None:
            yield block("set", f"rate{family}", [*known, "flags dynamic,timeout", "timeout 1m"])
        if limits is not None and limits.connections is not None:
            yield block("set", f"count{family}", [*known, "flags dynamic"])
