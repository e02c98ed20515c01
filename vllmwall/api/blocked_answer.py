"""The answer to `vllmwall blocked`: what a ledger holds, as JSON, with what it may mean. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from vllmwall.api.blocked_shapes import (
    BLOCKED_VERSION,
    BlockedJson,
    RefusedInJson,
    RefusedJson,
)
from vllmwall.cidr import NetworkSet
from vllmwall.engine.refusals import MOST, Knock, Ledger, Record, Total
from vllmwall.model import PEERS, PUBLIC, Address, Mode, Role

_OFTEN = 3  # packets: one attempt is repeated by TCP after a second, and after three
_PRIVATE = NetworkSet(
    ip_network(text)
    for text in (
        "10.0.0.0/8",  # RFC 1918
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",  # RFC 3927
        "fc00::/7",  # RFC 4193
        "fe80::/10",  # RFC 4291
    )
)


def by_packets(record: Record) -> float:
    """The busiest first."""
    return record.total.packets


def by_time(record: Record) -> float:
    """The newest first."""
    return record.last


@dataclass(frozen=True)
class BlockedFacts:
    """What the answer is made of. ``remembered`` is how many sources the kernel holds by
    namespace and family, of at most ``room``; ``modes`` are those of the walls that stand."""

    now: float
    down: bool
    ledger: Ledger
    names: dict[int, str]
    modes: dict[int, Mode]
    errors: dict[int, str]
    remembered: dict[tuple[int, int], int]
    room: int
    peers: NetworkSet


def blocked_json(
    facts: BlockedFacts, most: int = MOST, order: Callable[[Record], float] = by_packets
) -> BlockedJson:
    """What was refused: ``most`` sources, by default the busiest, and the sums of all."""
    records = sorted(facts.ledger.records.items(), key=lambda each: -order(each[1]))
    named: Counter[tuple[int, Mode]] = Counter()
    for knock, record in records:
        named[knock.namespace, knock.mode] += record.total.packets
    return {
        "version": BLOCKED_VERSION,
        "time": facts.now,
        "since": facts.ledger.began,
        "down": facts.down,
        "namespaces": [_space_json(inode, facts, named) for inode in sorted(facts.names)],
        "sources": [_refused_json(knock, record, facts) for knock, record in records[:most]],
        "more": max(0, len(records) - most),
    }


def is_private(address: Address) -> bool:
    """Whether an address is of a network that somebody here runs: RFC 1918, ULA, link-local.

    Narrower than Python's ``is_private``, which counts the documentation networks.
    """
    return address in _PRIVATE


def is_forgotten_peer(knock: Knock, record: Record, peers: NetworkSet) -> bool:
    """Whether this looks like a peer that nobody named: adding it would let it in."""
    return (
        record.total.packets >= _OFTEN
        and is_private(knock.source)
        and record.purpose.role not in ("", Role.API.value)
        and PEERS in record.purpose.audience
        and knock.source not in peers
    )


def _space_json(
    inode: int, facts: BlockedFacts, named: Mapping[tuple[int, Mode], int]
) -> RefusedInJson:
    mode = facts.modes.get(inode, Mode.ENFORCE)
    total = facts.ledger.totals.get((inode, mode), Total())
    full = any(facts.remembered.get((inode, family), 0) >= facts.room for family in (4, 6))
    return {
        "inode": inode,
        "name": facts.names[inode],
        "mode": mode.value,
        "packets": total.packets,
        "bytes": total.bytes,
        "unnamed_packets": max(0, total.packets - named.get((inode, mode), 0)),
        "full": full,
        "error": facts.errors.get(inode),
    }


def _refused_json(knock: Knock, record: Record, facts: BlockedFacts) -> RefusedJson:
    forgotten = is_forgotten_peer(knock, record, facts.peers)
    return {
        "source": str(knock.source),
        "name": "",
        "namespace": facts.names.get(knock.namespace, f"net:{knock.namespace}"),
        "mode": knock.mode.value,
        "proto": knock.proto.value,
        "port": knock.port,
        "role": record.purpose.role,
        "workload": record.purpose.workload,
        "audience": list(record.purpose.audience),
        "packets": record.total.packets,
        "bytes": record.total.bytes,
        "since": record.since,
        "last": record.last,
        "hint": "this looks like a forgotten peer" if forgotten else _hint(knock, record, facts),
        "command": f"vllmwall peers add {_network(knock.source)} --save" if forgotten else "",
    }


def _hint(knock: Knock, record: Record, facts: BlockedFacts) -> str:
    groups = [name for name in record.purpose.audience if name not in (PEERS, PUBLIC)]
    if knock.source not in facts.peers:
        return ""
    if PEERS in record.purpose.audience:
        return "it is a peer now"
    return f"it is a peer, but only {', '.join(groups)} may connect" if groups else ""


def _network(address: Address) -> str:
    return f"{address}/{address.max_prefixlen}"
