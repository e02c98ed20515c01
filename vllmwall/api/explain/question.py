"""Why is this port open, or closed, to that source? The kernel's own table is asked.

The table is read back, and `evaluation` says what it does to the packet; everything around it
(process, workload, role, audience, peers) is what the daemon knows, the sockets of the port being
read anew.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from vllmwall.api.errors import Json
from vllmwall.api.explain.reasons import AnswerFacts, OwnerFacts, WallFacts, explain_json
from vllmwall.api.explain.shape import ExplainJson, SourceJson, StepJson
from vllmwall.api.explain.targets import (
    Asked,
    Door,
    asked_of,
    destination,
    doors,
    own_of,
    owner_of,
    sources,
)
from vllmwall.config import DROP_INS, load
from vllmwall.config.origins import of_audience, of_network
from vllmwall.decide.walls import decide
from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.evaluator import (
    Judgement,
    NotUnderstoodError,
    Packet,
    Socket,
    Step,
    evaluate,
    read_table,
)
from vllmwall.enforce.evaluator.socket_lookup import reached
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.engine.options import DOWN_MARKER
from vllmwall.engine.reconciler import Reconciler
from vllmwall.engine.state import State
from vllmwall.linux.users import user_name
from vllmwall.model import PEERS, Address, Listener, Network, Proto, Role
from vllmwall.networks import PeerList
from vllmwall.networks.banlist import FILE_NAME, BanList
from vllmwall.observe.namespaces import inode_of_name
from vllmwall.observe.socket_cgroups import ancestors, birth_cgroups
from vllmwall.recognize import recognize

AT_ONCE = 8  # answers, 3 ms each: a role can have hundreds of listeners, and the loop waits
_read = lru_cache(maxsize=4)(read_table)


def explain(state: State, arguments: Json) -> Json:
    """What becomes of the first packet of each source at each door that is asked about."""
    return explained(state.reconciler, asked_of(arguments))


def explain_once(
    config_path: Path, runtime_dir: Path, only: tuple[str, ...], arguments: Json
) -> ExplainJson:
    """The same without a daemon. Changes nothing and asks no DNS.

    Raises ConfigError, ControlError, OSError and EnforceError.
    """
    config = load(config_path).settings()
    peers = PeerList(config.peers, runtime_dir, config_path.parent / DROP_INS)
    bans = BanList(runtime_dir / FILE_NAME)
    keeper = Reconciler(config, peers, Nftables(), frozenset(map(inode_of_name, only)), bans=bans)
    keeper.down = (runtime_dir / DOWN_MARKER).exists()
    node = keeper.observer.observe()
    keeper.recognition = recognize(node, config.definitions)
    keeper.decision = decide(keeper.recognition, keeper.policy, peers.networks())
    return {**explained(keeper, asked_of(arguments)), "daemon": False}


def explained(keeper: Reconciler, asked: Asked) -> ExplainJson:
    """Some of the answers, from the one that was asked for on. Raises ControlError."""
    seen = _Seen(keeper)
    every = _possible(pair for door in doors(keeper, asked) for pair in _packets(asked, door, seen))
    found = [_answer(seen, *pair) for pair in every[asked.skip : asked.skip + AT_ONCE]]
    problems = ["the walls are down on request: vllmwall up"] if keeper.down else []
    return explain_json(socket.gethostname(), time.time(), found, len(every), problems)


@dataclass
class _Seen:
    """What one question reads, each thing once."""

    keeper: Reconciler
    tables: dict[int, str] = field(default_factory=dict)
    addresses: dict[int, tuple[Address, ...]] = field(default_factory=dict)
    audiences: dict[Role, str] = field(default_factory=dict)

    def table(self, namespace: int) -> str:
        """Empty where none stands. Raises OSError, KeyError and EnforceError."""
        if namespace not in self.tables:
            backend = self.keeper.backend
            if not isinstance(backend, Nftables):
                raise EnforceError(f"the table of {backend.name} cannot be evaluated")
            path = self.keeper.observer.namespaces.path(namespace)
            self.tables[namespace] = backend.listed(path)
        return self.tables[namespace]

    def own(self, namespace: int) -> tuple[Address, ...]:
        """The namespace's own addresses."""
        if namespace not in self.addresses:
            self.addresses[namespace] = own_of(self.keeper, namespace)
        return self.addresses[namespace]

    def audience_from(self, role: Role) -> str:
        """The line that says who may connect to a role."""
        if role not in self.audiences:
            self.audiences[role] = of_audience(self.keeper.config.files, role)
        return self.audiences[role]


def _packets(asked: Asked, door: Door, seen: _Seen) -> list[tuple[Door, Packet]]:
    """One for each source; where none is of a family that finds a way there, the first all the
    same, with ends of two families: that is what is wrong with it."""
    own = seen.own(door.namespace)
    every = [
        Packet(
            source,
            destination(door, source, own, asked.to),
            door.proto.value,
            door.port,
            asked.source_port or 0,
            frozenset({"syn"} if door.proto is Proto.TCP else ()),
            interface="lo" if source in own or source.is_loopback else "",
        )
        for source in sources(seen.keeper, asked, own)
    ]
    fitting = [one for one in every if one.family == one.destination.version]
    return [(door, one) for one in fitting or every[:1]]


def _possible(pairs: Iterable[tuple[Door, Packet]]) -> list[tuple[Door, Packet]]:
    """Without the sockets that are not for the source's family, where another at that port is."""
    every = [(door, one, one.family == one.destination.version) for door, one in pairs]
    met = {(door.namespace, door.proto, door.port, one.source) for door, one, fits in every if fits}
    return [
        (door, one)
        for door, one, fits in every
        if fits or (door.namespace, door.proto, door.port, one.source) not in met
    ]


def _answer(seen: _Seen, door: Door, packet: Packet) -> AnswerFacts:
    keeper = seen.keeper
    exists = packet.family == packet.destination.version
    return AnswerFacts(
        namespace=keeper.observer.namespaces.name(door.namespace),
        mode=keeper.policy.mode,
        proto=door.proto,
        source=packet.source,
        source_is=tuple(_memberships(keeper, packet.source)),
        destination=packet.destination,
        port=door.port,
        wall=_judge(seen, door, packet) if exists else WallFacts("unknown"),
        listener=door.listener,
        owner=_owner(seen, door.listener) if door.listener else OwnerFacts(),
        here=packet.interface == "lo",
    )


def _judge(seen: _Seen, door: Door, packet: Packet) -> WallFacts:
    """What the table in the kernel does to it."""
    try:
        text = seen.table(door.namespace)
        if not text:
            return WallFacts("none")
        found = evaluate(_read(text), _with_socket(seen.keeper, door, packet))
    except NotUnderstoodError as error:
        return WallFacts("unknown", why=str(error))
    except (OSError, KeyError, EnforceError) as error:
        return WallFacts("unknown", why=f"it cannot be read: {error}")
    outcomes = tuple(sorted(one.value for one in found.possible)) if found.outcomes else ()
    return WallFacts(found.verdict.value, tuple(_steps(found)), outcomes)


def _steps(judgement: Judgement) -> Iterator[StepJson]:
    return (_step(one) for one in judgement.way)


def _step(one: Step) -> StepJson:
    return {
        "chain": one.chain,
        "rule": one.rule,
        "set": one.set,
        "element": one.element,
        "matched": one.matched,
    }


def _with_socket(keeper: Reconciler, door: Door, packet: Packet) -> Packet:
    """The packet with the socket that the kernel finds for it. Raises OSError."""
    if door.proto is not Proto.TCP or packet.dport is None:
        return packet
    path = keeper.observer.namespaces.path(door.namespace)
    there = keeper.observer.namespaces.listeners(door.namespace, packet.dport)
    found = reached(there, packet.proto, packet.destination, packet.dport)
    if found is None:
        return packet
    number = birth_cgroups(path, packet.dport).get(found.inode)
    above = ancestors(number, _likely(keeper, door.listener)) if number else {}
    if above is None:
        raise EnforceError("the cgroup in which its socket was made is gone")
    return Packet(
        packet.source,
        packet.destination,
        packet.proto,
        packet.dport,
        packet.sport,
        packet.flags,
        packet.interface,
        socket=Socket(above),
    )


def _likely(keeper: Reconciler, listener: Listener | None) -> Iterator[str]:
    for pid in listener.pids if listener else ():
        if process := keeper.observer.process(pid):
            yield process.cgroup


def _owner(seen: _Seen, listener: Listener) -> OwnerFacts:
    keeper = seen.keeper
    process = next(filter(None, map(keeper.observer.process, listener.pids)), None)
    command, cgroup = (process.comm, process.cgroup) if process else ("", "")
    user = user_name(listener.uid)
    owned = owner_of(keeper, listener)
    if owned is None:
        return OwnerFacts(command, user, cgroup)
    workload, labelled = owned
    role = labelled.label.role
    skipped = (one.reason for one in keeper.decision.skipped if one.listener == labelled.listener)
    return OwnerFacts(
        command,
        user,
        cgroup,
        workload,
        labelled,
        keeper.policy.audience_of(role),
        seen.audience_from(role),
        next(skipped, ""),
    )


def _memberships(keeper: Reconciler, source: Address) -> Iterator[SourceJson]:
    """The peer sources, the groups and the bans that hold the source."""
    files = keeper.config.files
    for one in keeper.peers.sources():
        for network in _holding(one.networks, source):
            static = one.kind == "static"
            yield {
                "audience": PEERS,
                "kind": one.kind,
                "name": one.name,
                "network": str(network),
                "where": of_network(files, ("peers", "cidrs"), network) if static else "",
                "expires": one.expires,
            }
    for name, networks in keeper.policy.groups.items():
        for network in _holding(networks, source):
            yield {
                "audience": name,
                "kind": "group",
                "name": name,
                "network": str(network),
                "where": of_network(files, ("groups", name), network),
                "expires": None,
            }
    for ban in keeper.bans.bans():
        for network in _holding((ban.network,), source):
            yield {
                "audience": "banned",
                "kind": "ban",
                "name": ban.reason,
                "network": str(network),
                "where": "",
                "expires": ban.expires,
            }


def _holding(networks: Iterable[Network], source: Address) -> Iterator[Network]:
    return (one for one in networks if one.version == source.version and source in one)
