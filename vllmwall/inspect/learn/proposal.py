"""`vllmwall learn`: what was seen, and the smallest sensible list of peers that follows. Pure.

Proposed are the sources that used an internal port for which peers are let in, connected or, in
audit mode, merely counted. Never: everyone, who used the api alone, who is a peer already, who was
refused in earnest, and a public address of which no connection was seen.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from vllmwall.api.blocked_answer import is_private
from vllmwall.api.blocked_shapes import RefusedJson
from vllmwall.api.connections_shapes import ClientJson
from vllmwall.cidr import NetworkSet, merged
from vllmwall.inspect.learn.grouping import exactly, has_public, sensibly
from vllmwall.inspect.learn.shape import (
    LEARN_VERSION,
    LearnedNetworkJson,
    LearnedSourceJson,
    LearnFactsJson,
    LearnJson,
)
from vllmwall.model import PEERS, PUBLIC, Address, Network, Role

FILE_NAME = "50-learned.toml"
MARK = "# Proposed by `vllmwall learn`"


@dataclass
class _Source:
    """What was seen of one address."""

    roles: set[str] = field(default_factory=set)
    workloads: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    connections: int = 0
    packets: int = 0
    refused: int = 0


class Watching:
    """Adds up what the daemon tells again and again."""

    def __init__(self) -> None:
        self._sources: dict[Address, _Source] = {}
        self._peers = NetworkSet(())
        self._mode = "enforce"
        self._notes: dict[str, None] = {}

    def take(self, facts: LearnFactsJson) -> None:
        """One more look."""
        self._peers = NetworkSet(ip_network(text) for text in facts["peers"])
        self._mode = _mode_of(facts)
        now: dict[Address, int] = {}
        for client in facts["connections"]["clients"]:
            if not client["here"]:
                address = ip_address(client["client"])
                now[address] = now.get(address, 0) + self._take_client(address, client)
        for address, number in now.items():
            source = self._sources[address]
            source.connections = max(source.connections, number)
        packets: dict[Address, int] = {}
        for one in facts["blocked"]["sources"]:
            address = ip_address(one["source"])
            packets[address] = packets.get(address, 0) + self._take_refused(address, one)
        for address, number in packets.items():
            self._sources[address].packets = number
        self._note_problems(facts)

    def answer(
        self, old: Collection[Network], old_text: str, file: str, seconds: float, *, exact: bool
    ) -> LearnJson:
        """The proposal. ``old`` and ``old_text`` are what ``file`` holds already."""
        sources = {one: self._source_json(one) for one in sorted(self._sources, key=_order)}
        wanted = [one for one, told in sources.items() if told["decision"] == "proposed"]
        outside = [one for one, told in sources.items() if told["decision"] == "left out"]
        networks = exactly(wanted) if exact else sensibly(wanted, outside)
        listed = [self._network_json(one, wanted) for one in networks if one.prefixlen > 0]
        now = time.time()
        text = _text(listed, old, now, seconds) if listed else ""
        return {
            "version": LEARN_VERSION,
            "time": now,
            "seconds": seconds,
            "mode": self._mode,  # type: ignore[typeddict-item]
            "sources": list(sources.values()),
            "networks": listed,
            "file": file,
            "text": text,
            "diff": _diff(old_text, text, file) if text else "",
            "notes": [*self._notes, *self._warnings(listed)],
        }

    def _take_client(self, address: Address, client: ClientJson) -> int:
        source = self._sources.setdefault(address, _Source())
        if not _is_internal(client):
            return 0
        _note_use(source, client)
        return client["connections"] if PEERS in client["audience"] else 0

    def _take_refused(self, address: Address, one: RefusedJson) -> int:
        source = self._sources.setdefault(address, _Source())
        if one["mode"] == "enforce":
            source.refused = max(source.refused, one["packets"])
            return 0
        if not _is_internal(one):
            return 0
        _note_use(source, one)
        return one["packets"] if PEERS in one["audience"] else 0

    def _note_problems(self, facts: LearnFactsJson) -> None:
        notes = list(facts["connections"]["problems"])
        if not facts["connections"]["complete"]:
            notes.append("there were more connections than could be read: some may be missing")
        if facts["blocked"]["more"] or any(
            space["full"] for space in facts["blocked"]["namespaces"]
        ):
            notes.append("there were more sources than could be told: some may be missing")
        self._notes.update(dict.fromkeys(notes))

    def _source_json(self, address: Address) -> LearnedSourceJson:
        source = self._sources[address]
        decision, why = self._decision(address, source)
        return {
            "address": str(address),
            "roles": sorted(source.roles),
            "workloads": sorted(source.workloads),
            "connections": source.connections,
            "packets": source.packets,
            "public": not is_private(address),
            "decision": decision,  # type: ignore[typeddict-item]
            "why": why,
        }

    def _decision(self, address: Address, source: _Source) -> tuple[str, str]:
        if address in self._peers:
            return "peer", "it is a peer already"
        if source.connections:
            return "proposed", "it was connected"
        if source.packets and is_private(address):
            return "proposed", "it tried, no connection of it was seen"
        if source.packets:
            return "left out", "it tried, no connection of it was seen, and it is a public address"
        if source.groups:
            return "left out", f"only {', '.join(sorted(source.groups))} may connect there"
        if source.refused:
            return "left out", "it was refused: vllmwall blocked tells more"
        return "left out", "it used nothing internal"

    def _network_json(self, network: Network, wanted: Iterable[Address]) -> LearnedNetworkJson:
        within = NetworkSet([network])
        inside = [one for one in wanted if one in within]
        return {
            "network": str(network),
            "seen": len(inside),
            "addresses": network.num_addresses,
            "public": has_public(network),
            "roles": sorted({role for one in inside for role in self._sources[one].roles}),
        }

    def _warnings(self, networks: Collection[LearnedNetworkJson]) -> list[str]:
        notes = []
        if self._mode == "enforce":
            notes.append(
                'the wall is enforced, so only peers can connect: learn with mode = "audit"'
            )
        elif networks:
            notes.append("nobody was kept out meanwhile: make sure that you know each of them")
        public = [one["network"] for one in networks if one["public"]]
        if public:
            notes.append(f"not private, so be sure whose it is: {', '.join(public)}")
        return notes


def _note_use(source: _Source, use: ClientJson | RefusedJson) -> None:
    source.roles |= {use["role"]} - {""}
    source.workloads |= {use["workload"]} - {""}
    if PEERS not in use["audience"]:
        source.groups |= set(use["audience"])


def _is_internal(use: ClientJson | RefusedJson) -> bool:
    """Who uses the api, however few may, is a client and no peer."""
    return PUBLIC not in use["audience"] and use["role"] != Role.API.value


def _mode_of(facts: LearnFactsJson) -> str:
    if facts["blocked"]["down"]:
        return "down"
    modes = {space["mode"] for space in facts["blocked"]["namespaces"]}
    return "audit" if "audit" in modes else "enforce"


def _text(
    networks: Iterable[LearnedNetworkJson], old: Iterable[Network], now: float, seconds: float
) -> str:
    """The drop-in: what is in it stays, unless something proposed holds it."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    new = {ip_network(one["network"]): _comment(one) for one in networks}
    lines: dict[Network, str] = {}
    for network in merged([*new, *old]):
        lines[network] = new.get(network, "from before")
    listed = "".join(f'  "{network}",  # {comment}\n' for network, comment in lines.items())
    return f"{MARK} on {when}, from {seconds:.0f} s.\n[peers]\ncidrs = [\n{listed}]\n"


def _comment(one: LearnedNetworkJson) -> str:
    parts = ["PUBLIC"] if one["public"] else []
    if one["addresses"] > 1:
        parts.append(f"{one['seen']} of {one['addresses']} seen")
    roles = ", ".join(one["roles"]) or "a port that nobody listens at now"
    return f"{', '.join(parts)}: {roles}" if parts else roles


def _diff(old: str, new: str, file: str) -> str:
    before = file if old else "/dev/null"
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), before, file
    )
    return "".join(lines)


def _order(address: Address) -> tuple[int, int]:
    return address.version, int(address)
