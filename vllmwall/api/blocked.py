"""`vllmwall blocked`: the sources that walls refused, and which of them may be forgotten peers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from vllmwall.cidr import PRIVATE, NetworkSet
from vllmwall.enforce.backend import EnforceError, Refusal
from vllmwall.enforce.nftables.refused_by import OrdersOf
from vllmwall.enforce.nftables.ruleset import REMEMBERED
from vllmwall.engine.node_addresses import node_addresses
from vllmwall.engine.refusals import MOST, Ledger, Purpose, Record, SourceAtPort, Total
from vllmwall.model import PEERS, PUBLIC, Address, Mode, Proto, Role

if TYPE_CHECKING:
    from vllmwall.engine.state import State

_SHOWN = 1000
_OFTEN = 3  # packets: one attempt is repeated by TCP after a second, and after three
_PRIVATE = NetworkSet(PRIVATE)


@dataclass(frozen=True)
class BlockedRequest:
    """All sources, which can take 0.3 s, instead of a thousand; the newest instead of those with
    the most packets."""

    all: bool = False
    newest: bool = False


@dataclass(frozen=True)
class BlockedSource:
    """One source at one port. ``mode`` audit: it would have been refused, and was let in.

    ``packets`` and ``bytes`` are all that we know of, over every rebuild of the table that the
    daemon saw. ``since`` is when the earliest packet that we know of came, ``last`` the newest
    one (seconds since the epoch). ``name`` is what DNS calls the source, both ways; empty: not
    known, or not asked. ``role`` and ``workload`` are empty where no listener was known there;
    ``role`` is ``ban``, ``limit`` or ``lockdown`` where one of those refused it.
    ``hint`` says in words what this may be, ``command`` what would let it in.
    """

    source: str
    name: str
    namespace: str
    mode: Mode
    proto: Proto
    port: int
    role: str
    workload: str
    audience: tuple[str, ...]
    packets: int
    bytes: int
    since: float
    last: float
    hint: str
    command: str


@dataclass(frozen=True)
class BlockedNamespace:
    """What the wall of one network namespace refused in all.

    ``unnamed_packets`` are those of sources that the kernel has forgotten, or never had room for.
    ``full``: it has no room now, so new sources are missing from the list and the counts of the
    others are lower bounds. ``error``: why it could not be read.
    """

    inode: int
    name: str
    mode: Mode
    packets: int
    bytes: int
    unnamed_packets: int
    full: bool
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Blocked:
    """The answer to `vllmwall blocked`. ``since``: when the daemon first read the counters; what
    the kernel remembered then counts too. ``down``: the walls are down on request. ``more`` is how
    many sources the answer leaves out."""

    version: int = 1
    time: float
    since: float
    down: bool
    namespaces: tuple[BlockedNamespace, ...]
    sources: tuple[BlockedSource, ...]
    more: int


@dataclass(frozen=True)
class BlockedFacts:
    """What walls refused, as read just now. ``remembered`` is how many sources the kernel holds by
    namespace and family, of at most ``room``; ``modes`` are those of the active walls."""

    now: float
    down: bool
    ledger: Ledger
    names: dict[int, str]
    modes: dict[int, Mode]
    errors: dict[int, str]
    remembered: dict[tuple[int, int], int]
    room: int
    peers: NetworkSet
    own: frozenset[Address] = frozenset()


def blocked(state: State, request: BlockedRequest) -> Blocked:
    """The refused sources that were asked for, and the sums of all."""
    most = MOST if request.all else _SHOWN
    return blocked_of(look(state), most, newest=request.newest)


def look(state: State) -> BlockedFacts:
    """Read what every wall counts, and note it: after each full pass too, so that little is lost.

    0.3 ms a namespace; 50 ms where the kernel's memory is full. Raises nothing: what cannot be
    read is said.
    """
    reconciler, now = state.reconciler, time.time()
    ledger = state.refusals
    facts = BlockedFacts(
        now,
        reconciler.down,
        ledger,
        {},
        {},
        {},
        {},
        REMEMBERED,
        NetworkSet(reconciler.peers.networks()),
        node_addresses(reconciler),
    )
    purpose = _purposes(state)
    for inode in reconciler.walls.spaces:
        facts.names[inode] = reconciler.observer.namespaces.name(inode)
        active = reconciler.walls.actual(inode)
        mode = facts.modes[inode] = active.mode if active else reconciler.policy.mode
        try:
            counters = reconciler.backend.counters(reconciler.observer.namespaces.path(inode))
        except (OSError, KeyError, EnforceError) as error:
            facts.errors[inode] = f"what was refused cannot be read: {error}"
            continue
        ledger.take((inode, mode), counters, now, partial(purpose, inode))
        families = Counter(one.source.version for one in counters.refusals)
        facts.remembered.update({(inode, family): n for family, n in families.items()})
    ledger.forget(reconciler.walls.spaces, now)
    return facts


def blocked_of(facts: BlockedFacts, most: int = MOST, *, newest: bool = False) -> Blocked:
    """What was refused: ``most`` sources, by default those with the most packets."""

    def order(each: tuple[SourceAtPort, Record]) -> float:
        return -each[1].last if newest else -each[1].total.packets

    records = sorted(facts.ledger.records.items(), key=order)
    named: Counter[tuple[int, Mode]] = Counter()
    for key, record in records:
        named[key.namespace, key.mode] += record.total.packets
    return Blocked(
        time=facts.now,
        since=facts.ledger.began,
        down=facts.down,
        namespaces=tuple(_namespace(inode, facts, named) for inode in sorted(facts.names)),
        sources=tuple(_source(*each, facts) for each in records[:most]),
        more=max(0, len(records) - most),
    )


def is_private(address: Address) -> bool:
    """Whether an address is of a network that somebody here runs: RFC 1918, ULA, link-local.

    Narrower than Python's ``is_private``, which counts the documentation networks.
    """
    return address in _PRIVATE


def is_forgotten_peer(
    key: SourceAtPort, record: Record, peers: NetworkSet, own: frozenset[Address]
) -> bool:
    """Whether this looks like a peer that nobody named: adding it would let it in. Never an
    address of this node (``own``): all clients behind its NAT have it."""
    return (
        key.source not in own
        and record.total.packets >= _OFTEN
        and is_private(key.source)
        and record.purpose.role not in ("", Role.API.value)
        and PEERS in record.purpose.audience
        and key.source not in peers
    )


def _namespace(
    inode: int, facts: BlockedFacts, named: Mapping[tuple[int, Mode], int]
) -> BlockedNamespace:
    mode = facts.modes.get(inode, Mode.ENFORCE)
    total = facts.ledger.totals.get((inode, mode), Total())
    return BlockedNamespace(
        inode=inode,
        name=facts.names[inode],
        mode=mode,
        packets=total.packets,
        bytes=total.bytes,
        unnamed_packets=max(0, total.packets - named.get((inode, mode), 0)),
        full=any(facts.remembered.get((inode, family), 0) >= facts.room for family in (4, 6)),
        error=facts.errors.get(inode),
    )


def _source(key: SourceAtPort, record: Record, facts: BlockedFacts) -> BlockedSource:
    forgotten = is_forgotten_peer(key, record, facts.peers, facts.own)
    return BlockedSource(
        source=str(key.source),
        name="",
        namespace=facts.names.get(key.namespace, f"net:{key.namespace}"),
        mode=key.mode,
        proto=key.proto,
        port=key.port,
        role=record.purpose.role,
        workload=record.purpose.workload,
        audience=record.purpose.audience,
        packets=record.total.packets,
        bytes=record.total.bytes,
        since=record.since,
        last=record.last,
        hint="this looks like a forgotten peer" if forgotten else _hint(key, record, facts),
        command=f"vllmwall peers add {_network(key.source)} --save" if forgotten else "",
    )


def _hint(key: SourceAtPort, record: Record, facts: BlockedFacts) -> str:
    if key.source in facts.own:
        return "an address of this node: all clients behind its NAT have it, so it is no peer"
    groups = [name for name in record.purpose.audience if name not in (PEERS, PUBLIC)]
    if key.source not in facts.peers:
        return ""
    if PEERS in record.purpose.audience:
        return "it is a peer now"
    return f"it is a peer, but only {', '.join(groups)} may connect" if groups else ""


def _network(address: Address) -> str:
    return f"{address}/{address.max_prefixlen}"


def _purposes(state: State) -> Callable[[int, Refusal], Purpose]:
    """What the ports of each namespace are for, by what listens there now; or ``ban``, ``limit``
    or ``lockdown`` where that is why a packet was refused."""
    policy = state.reconciler.policy
    known: dict[tuple[int, int, Proto, int], Purpose] = {}
    for workload in state.reconciler.recognition.workloads:
        for one in workload.listeners:
            role = one.label.role
            found = Purpose(role.value, workload.name, policy.audience_of(role))
            for to in one.listener.destinations:
                place = (one.listener.namespace, to.family, one.listener.proto, one.listener.port)
                known.setdefault(place, found)

    active = state.reconciler.walls.actual
    orders = {
        inode: OrdersOf(wall)
        for inode in state.reconciler.walls.spaces
        if (wall := active(inode)) is not None
    }

    def purpose(namespace: int, one: Refusal) -> Purpose:
        found = known.get((namespace, one.source.version, one.proto, one.port), Purpose())
        ours = orders.get(namespace)
        order = ours.behind(one.source, one.proto, one.port) if ours else ""
        return Purpose(order, found.workload) if order else found

    return purpose
