"""`vllmwall learn`: the sources that were seen, and the peers to add for them. Pure.

Proposes sources that used an internal port whose audience includes peers: connected or, in audit
mode, counted. Never proposes all addresses, sources that used only the API, present peers, sources
that were blocked in enforce mode, and public addresses without a connection.
"""

from __future__ import annotations

import difflib
import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Literal

from vllmwall.api.blocked import BlockedSource, is_private
from vllmwall.api.connections import Client
from vllmwall.api.learn import LearnFacts
from vllmwall.cidr import NetworkSet, merged
from vllmwall.inspect.learn.grouping import exactly, sensibly
from vllmwall.model import PEERS, PUBLIC, Address, Mode, Network, Role

FILE_NAME = "50-learned.toml"
MARK = "# Proposed by `vllmwall learn`"

WallMode = Literal["enforce", "audit", "down"]
Decision = Literal["proposed", "peer", "left out"]


@dataclass(frozen=True)
class LearnedSource:
    """One address. ``roles`` are the internal roles that it used, ``connections`` the most at one
    time, ``packets`` the number counted in audit mode. ``why`` explains the decision in words.
    """

    address: str
    roles: tuple[str, ...]
    workloads: tuple[str, ...]
    connections: int
    packets: int
    public: bool
    decision: Decision
    why: str


@dataclass(frozen=True)
class LearnedNetwork:
    """One proposed network, of whose ``addresses`` so many were ``seen``."""

    network: str
    seen: int
    addresses: int
    public: bool
    roles: tuple[str, ...]


@dataclass(frozen=True)
class Proposal:
    """The answer of `vllmwall learn`: the sources seen in ``seconds``, and the proposed peers.

    ``file`` is the drop-in for them, ``text`` its whole content, ``diff`` the unified diff from its
    present content; both are empty if nothing is proposed. Nothing was applied.
    """

    version: int
    time: float
    seconds: float
    mode: WallMode
    sources: tuple[LearnedSource, ...]
    networks: tuple[LearnedNetwork, ...]
    file: str
    text: str
    diff: str
    notes: tuple[str, ...]


@dataclass
class _Source:
    """The sums for one address."""

    roles: set[str] = field(default_factory=set)
    workloads: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    connections: int = 0
    packets: int = 0
    refused: int = 0


class Watching:
    """Adds up the daemon's answers."""

    def __init__(self) -> None:
        self._sources: dict[Address, _Source] = {}
        self._peers = NetworkSet(())
        self._own: frozenset[Address] = frozenset()
        self._mode: WallMode = "enforce"
        self._notes: dict[str, None] = {}

    def take(self, facts: LearnFacts) -> None:
        """Add one answer."""
        self._peers = NetworkSet(facts.peers)
        self._own = frozenset(facts.own)
        self._mode = _mode_of(facts)
        connected: Counter[Address] = Counter()
        for client in facts.connections.clients:
            if not client.here:
                address = ip_address(client.client)
                connected[address] += client.connections if self._used(address, client) else 0
        for address, number in connected.items():
            source = self._sources[address]
            source.connections = max(source.connections, number)
        counted: Counter[Address] = Counter()
        for one in facts.blocked.sources:
            address = ip_address(one.source)
            if one.mode is Mode.ENFORCE:
                source = self._source(address)
                source.refused = max(source.refused, one.packets)
            else:
                counted[address] += one.packets if self._used(address, one) else 0
        for address, number in counted.items():
            self._sources[address].packets = number
        self._note_problems(facts)

    def answer(
        self, old: Collection[Network], old_text: str, file: str, seconds: float, *, exact: bool
    ) -> Proposal:
        """The proposal. ``old`` and ``old_text`` are the present content of ``file``."""
        sources = {
            one: self._learned(one)
            for one in sorted(self._sources, key=lambda one: (one.version, int(one)))
        }
        wanted = [one for one, told in sources.items() if told.decision == "proposed"]
        outside = [one for one, told in sources.items() if told.decision == "left out"]
        outside += self._own  # a network around what was seen must not hold one either
        networks = exactly(wanted) if exact else sensibly(wanted, outside)
        listed = [self._network(one, wanted) for one in networks if one.prefixlen > 0]
        now = time.time()
        text = _text(listed, old, now, seconds) if listed else ""
        return Proposal(
            version=1,
            time=now,
            seconds=seconds,
            mode=self._mode,
            sources=tuple(sources.values()),
            networks=tuple(listed),
            file=file,
            text=text,
            diff=_diff(old_text, text, file) if text else "",
            notes=(*self._notes, *self._warnings(listed)),
        )

    def _source(self, address: Address) -> _Source:
        return self._sources.setdefault(address, _Source())

    def _used(self, address: Address, use: Client | BlockedSource) -> bool:
        """Note the use of an internal port; whether peers may connect there.

        A source that uses the API is a client, not a peer.
        """
        source = self._source(address)
        if PUBLIC in use.audience or use.role == Role.API.value:
            return False
        source.roles |= {use.role} - {""}
        source.workloads |= {use.workload} - {""}
        if PEERS not in use.audience:
            source.groups |= set(use.audience)
        return PEERS in use.audience

    def _note_problems(self, facts: LearnFacts) -> None:
        notes = list(facts.connections.problems)
        if not facts.connections.complete:
            notes.append("there were too many connections to read all: some may be missing")
        if facts.blocked.more or any(space.full for space in facts.blocked.namespaces):
            notes.append("there were too many blocked sources to list all: some may be missing")
        self._notes.update(dict.fromkeys(notes))

    def _learned(self, address: Address) -> LearnedSource:
        source = self._sources[address]
        decision, why = self._decision(address, source)
        return LearnedSource(
            address=str(address),
            roles=tuple(sorted(source.roles)),
            workloads=tuple(sorted(source.workloads)),
            connections=source.connections,
            packets=source.packets,
            public=not is_private(address),
            decision=decision,
            why=why,
        )

    def _decision(self, address: Address, source: _Source) -> tuple[Decision, str]:
        if address in self._peers:
            return "peer", "it is already a peer"
        if address in self._own:
            return "left out", "it is an address of this node: all clients behind its NAT have it"
        if source.connections:
            return "proposed", "it was connected"
        if source.packets and is_private(address):
            return "proposed", "it tried to connect, but no connection was seen"
        if source.packets:
            return "left out", "it is public and tried to connect, but no connection was seen"
        if source.groups:
            return "left out", f"only {', '.join(sorted(source.groups))} may connect there"
        if source.refused:
            return "left out", "it was blocked: see vllmwall blocked"
        return "left out", "it used no internal port"

    def _network(self, network: Network, wanted: Iterable[Address]) -> LearnedNetwork:
        within = NetworkSet([network])
        inside = [one for one in wanted if one in within]
        return LearnedNetwork(
            network=str(network),
            seen=len(inside),
            addresses=network.num_addresses,
            public=not is_private(network.network_address),
            roles=tuple(sorted({role for one in inside for role in self._sources[one].roles})),
        )

    def _warnings(self, networks: Collection[LearnedNetwork]) -> list[str]:
        notes = []
        if self._mode == "enforce":
            notes.append(
                'the mode is enforce, so only peers can connect: learn with mode = "audit"'
            )
        elif networks:
            notes.append("nothing was blocked meanwhile: make sure that you know each source")
        public = [one.network for one in networks if one.public]
        if public:
            notes.append(f"not private, so check who owns it: {', '.join(public)}")
        return notes


def _mode_of(facts: LearnFacts) -> WallMode:
    if facts.blocked.down:
        return "down"
    is_audit = any(space.mode is Mode.AUDIT for space in facts.blocked.namespaces)
    return "audit" if is_audit else "enforce"


def _text(
    networks: Iterable[LearnedNetwork], old: Iterable[Network], now: float, seconds: float
) -> str:
    """The drop-in: its present networks are kept, unless a proposed one contains them."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    new = {ip_network(one.network): _comment(one) for one in networks}
    lines: dict[Network, str] = {}
    for network in merged([*new, *old]):
        lines[network] = new.get(network, "already in this file")
    listed = "".join(f'  "{network}",  # {comment}\n' for network, comment in lines.items())
    return f"{MARK} on {when}, from {seconds:.0f} s.\n[peers]\ncidrs = [\n{listed}]\n"


def _comment(one: LearnedNetwork) -> str:
    parts = ["PUBLIC"] if one.public else []
    if one.addresses > 1:
        parts.append(f"{one.seen} of {one.addresses} seen")
    roles = ", ".join(one.roles) or "a port without a listener now"
    return f"{', '.join(parts)}: {roles}" if parts else roles


def _diff(old: str, new: str, file: str) -> str:
    before = file if old else "/dev/null"
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), before, file
    )
    return "".join(lines)
