"""Why is this port open, or closed, to that source? The kernel's own table is asked.

The table is read back, and `evaluation` says what it does to the packet; everything around it
(process, workload, role, audience, peers) is what the daemon knows, the sockets of the port being
read anew.
"""

from __future__ import annotations

import pwd
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from vllmwall.bans import FILE_NAME, BanList
from vllmwall.config import DROP_INS, load
from vllmwall.config.origins import of_audience, of_network
from vllmwall.control import Json
from vllmwall.decide import decide
from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.evaluation import (
    Judgement,
    NotUnderstoodError,
    Packet,
    Socket,
    Step,
    evaluate,
    read_table,
)
from vllmwall.enforce.evaluation.finding import reached
from vllmwall.enforce.nftables import Nftables
from vllmwall.model import PEERS, Address, Listener, Network, Proto
from vllmwall.observe.births import ancestors, birth_cgroups
from vllmwall.observe.namespaces import inode_of_name
from vllmwall.passes import WallKeeper
from vllmwall.peers import PeerList
from vllmwall.questions.explain_doors import (
    Asked,
    Door,
    asked_of,
    destination,
    doors,
    own_of,
    owner_of,
    sources,
)
from vllmwall.recognize import recognize
from vllmwall.report.explain import AnswerFacts, OwnerFacts, WallFacts, explain_json
from vllmwall.report.explain_shapes import ExplainJson, SourceJson, StepJson

if TYPE_CHECKING:
    from vllmwall.daemon import Daemon

DOWN_MARKER = "down"  # as `vllmwall.once` has it, which lies above
MOST = 64  # answers: a role can have hundreds of listeners
_read = lru_cache(maxsize=4)(read_table)


def explain(daemon: Daemon, arguments: Json) -> Json:
    """What becomes of the first packet of each source at each door that is asked about."""
    return explained(daemon.keeper, asked_of(arguments))


def explain_once(
    config_path: Path, runtime_dir: Path, only: tuple[str, ...], arguments: Json
) -> ExplainJson:
    """The same without a daemon. Changes nothing and asks no DNS.

    Raises ConfigError, ControlError, OSError and EnforceError.
    """
    config = load(config_path)
    peers = PeerList(config.peers, runtime_dir, config_path.parent / DROP_INS)
    bans = BanList(runtime_dir / FILE_NAME)
    keeper = WallKeeper(config, peers, Nftables(), frozenset(map(inode_of_name, only)), bans=bans)
    keeper.down = (runtime_dir / DOWN_MARKER).exists()
    node = keeper.observer.observe()
    keeper.recognition = recognize(node, config.lessons())
    keeper.decision = decide(keeper.recognition, keeper.policy, peers.networks())
    return {**explained(keeper, asked_of(arguments)), "daemon": False}


def explained(keeper: WallKeeper, asked: Asked) -> ExplainJson:
    """The answer. Raises ControlError."""
    found = [one for door in doors(keeper, asked) for one in _answers(keeper, asked, door)]
    problems = [f"{len(found)} answers; the first {MOST} are shown"] if len(found) > MOST else []
    if keeper.down:
        problems.append("the walls are down on request: vllmwall up")
    return explain_json(socket.gethostname(), time.time(), found[:MOST], problems)


def _answers(keeper: WallKeeper, asked: Asked, door: Door) -> Iterator[AnswerFacts]:
    """One for each source; sources of a family that finds no way there, only if all are so."""
    own = own_of(keeper, door.namespace)
    every = [
        (source, destination(door, source, own, asked.to)) for source in sources(keeper, asked, own)
    ]
    fitting = [(source, to) for source, to in every if source.version == to.version]
    for source, to in fitting or every[:1]:
        yield _answer(keeper, asked, door, source, to)


def _answer(
    keeper: WallKeeper, asked: Asked, door: Door, source: Address, to: Address
) -> AnswerFacts:
    here = source in own_of(keeper, door.namespace) or source.is_loopback
    packet = Packet(
        source,
        to,
        door.proto.value,
        door.port,
        asked.source_port or 0,
        frozenset({"syn"} if door.proto is Proto.TCP else ()),
        interface="lo" if here else "",
    )
    same_family = source.version == to.version
    return AnswerFacts(
        namespace=keeper.observer.namespaces.name(door.namespace),
        mode=keeper.policy.mode,
        proto=door.proto,
        source=source,
        source_is=tuple(_memberships(keeper, source)),
        destination=to,
        port=door.port,
        wall=_judge(keeper, door, packet) if same_family else WallFacts("unknown"),
        listener=door.listener,
        owner=_owner(keeper, door.listener) if door.listener else OwnerFacts(),
        here=here,
    )


def _judge(keeper: WallKeeper, door: Door, packet: Packet) -> WallFacts:
    """What the table in the kernel does to it."""
    try:
        text = _listed(keeper, door.namespace)
        if not text:
            return WallFacts("none")
        found = evaluate(_read(text), _with_socket(keeper, door, packet))
    except NotUnderstoodError as error:
        return WallFacts("unknown", why=str(error))
    except (OSError, KeyError, EnforceError) as error:
        return WallFacts("unknown", why=f"it cannot be read: {error}")
    outcomes = tuple(one.verdict.value for one in found.outcomes)
    return WallFacts(found.verdict.value, tuple(_steps(found)), outcomes)


def _listed(keeper: WallKeeper, namespace: int) -> str:
    if not isinstance(keeper.backend, Nftables):
        raise EnforceError(f"the table of {keeper.backend.name} cannot be evaluated")
    return keeper.backend.listed(keeper.observer.namespaces.path(namespace))


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


def _with_socket(keeper: WallKeeper, door: Door, packet: Packet) -> Packet:
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


def _likely(keeper: WallKeeper, listener: Listener | None) -> Iterator[str]:
    for pid in listener.pids if listener else ():
        if process := keeper.observer.process(pid):
            yield process.cgroup


def _owner(keeper: WallKeeper, listener: Listener) -> OwnerFacts:
    process = next(filter(None, map(keeper.observer.process, listener.pids)), None)
    command, cgroup = (process.comm, process.cgroup) if process else ("", "")
    user = _user(listener.uid)
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
        of_audience(keeper.config.files, role),
        next(skipped, ""),
    )


def _memberships(keeper: WallKeeper, source: Address) -> Iterator[SourceJson]:
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


def _user(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)
