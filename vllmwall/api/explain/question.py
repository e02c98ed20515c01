"""Why a port is open or closed to a source, by the table in the kernel.

The table is read back and evaluated for the packet. The facts around it (process, workload, role,
audience, peers) are those of the daemon; only the sockets of the port are read again.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from vllmwall.api.explain.answer import (
    EXPLAIN_VERSION,
    Answer,
    Explanation,
    Membership,
    Purpose,
    ReachedSocket,
    worst,
)
from vllmwall.api.explain.firewalls import forwarded, settled
from vllmwall.api.explain.reasons import WallFacts, judged
from vllmwall.api.explain.targets import Probe, Question, labelled, probes
from vllmwall.config import load
from vllmwall.config.origins import of_audience, of_network
from vllmwall.decide.adopted import KIND as ADOPTED
from vllmwall.decide.adopted import with_adopted
from vllmwall.decide.opened import with_opened
from vllmwall.decide.walls import audience_at, decide
from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.evaluator import (
    NotUnderstoodError,
    Packet,
    Socket,
    evaluate,
    read_table,
    refused_by_first_port,
)
from vllmwall.enforce.evaluator.socket_lookup import reached
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.enforce.nftables.readback import read_wall
from vllmwall.engine.building import reconciler_for
from vllmwall.engine.options import Options
from vllmwall.engine.reconciler import Reconciler
from vllmwall.engine.state import State
from vllmwall.linux.users import user_name
from vllmwall.model import PEERS, Address, Listener, Network, Proto, Role, Wall
from vllmwall.observe.other_firewalls import PublishedPort
from vllmwall.observe.socket_cgroups import ancestors, birth_cgroups
from vllmwall.recognize import recognize

AT_ONCE = 8  # answers, 3 ms each: a workload can have hundreds of listeners, and the loop waits
_read_table = lru_cache(maxsize=4)(read_table)


def explain(state: State, question: Question) -> Explanation:
    """The fate of the first packet of each source at each port that is asked about."""
    return explained(state.reconciler, question)


def explain_once(
    config_path: Path, runtime_dir: Path, only: tuple[str, ...], question: Question
) -> Explanation:
    """The same without a daemon. Changes nothing and asks no DNS.

    Raises ConfigError, ControlError, OSError and EnforceError.
    """
    config = load(config_path).settings()
    reconciler = reconciler_for(Options(config_path, runtime_dir, only), config)
    node = reconciler.observer.observe()
    recognized = recognize(node, config.definitions, config.rows)
    opened = with_opened(recognized, reconciler.apis.opened())
    found = with_adopted(opened, reconciler.adoption.in_force(), reconciler.policy)
    reconciler.recognition = found
    reconciler.decision = decide(found, reconciler.policy, reconciler.peers.networks())
    answer = explained(reconciler, question)
    problem = "no daemon answers: the table in the kernel was read without it"
    return replace(answer, daemon=False, problems=(problem, *answer.problems))


def explained(reconciler: Reconciler, asked: Question) -> Explanation:
    """A part of the answers, the first ``skip`` left out. Raises ControlError."""
    every = probes(reconciler, asked)
    pairs = settled(every, asked.firewalls or ())
    known = _Known(reconciler)
    answers = tuple(_answer(known, *pair) for pair in pairs[asked.skip : asked.skip + AT_ONCE])
    return Explanation(
        version=EXPLAIN_VERSION,
        host=socket.gethostname(),
        time=time.time(),
        daemon=True,
        verdict=worst(answers),
        total=len(pairs),
        namespaces=tuple(sorted({probe.namespace for probe in every})),
        answers=answers,
        hooks=tuple(hook for one in asked.firewalls or () for hook in one.hooks),
        problems=tuple(_problems(reconciler, asked, every)),
    )


def _problems(reconciler: Reconciler, asked: Question, every: list[Probe]) -> Iterator[str]:
    if reconciler.down:
        yield "the walls are down on request; `vllmwall up` restores them"
    if asked.firewalls is None:
        yield "other firewalls are unknown: only root can read them"
        return
    yield from (problem for one in asked.firewalls for problem in one.problems)
    yield from forwarded(every, asked.firewalls)


@dataclass
class _Known:
    """The things that one question reads, each once."""

    reconciler: Reconciler
    tables: dict[int, str] = field(default_factory=dict)
    audiences: dict[Role, str] = field(default_factory=dict)

    def table(self, namespace: int) -> str:
        """Empty where there is none. Raises OSError, KeyError and EnforceError."""
        if namespace not in self.tables:
            backend = self.reconciler.backend
            if not isinstance(backend, Nftables):
                raise EnforceError(f"the table of {backend.name} cannot be evaluated")
            path = self.reconciler.observer.namespaces.path(namespace)
            self.tables[namespace] = backend.listed(path)
        return self.tables[namespace]

    def audience_from(self, role: Role) -> str:
        """The line of the configuration that defines the audience of a role."""
        if role not in self.audiences:
            self.audiences[role] = of_audience(self.reconciler.config.files, role)
        return self.audiences[role]


def _answer(known: _Known, probe: Probe, published: PublishedPort | None) -> Answer:
    reconciler, packet, target = known.reconciler, probe.packet, probe.target
    wall = _wall(known, probe) if probe.exists and not published else WallFacts("unknown")
    verdict, reason = judged(probe, wall, published)
    return Answer(
        verdict=verdict,
        wall=wall.verdict,
        reason=reason,
        namespace=probe.namespace,
        mode=reconciler.policy.mode,
        proto=target.proto,
        source=packet.source,
        source_is=tuple(_memberships(reconciler, packet.source)),
        address=packet.destination,
        port=target.port,
        decided=wall.decided,
        way=wall.way,
        outcomes=wall.outcomes,
        socket=_socket(reconciler, target.listener) if target.listener else None,
        purpose=_purpose(known, target.listener) if target.listener else None,
        closed_when_redirected=wall.closed_when_redirected,
    )


def _wall(known: _Known, probe: Probe) -> WallFacts:
    """The verdict of the table in the kernel."""
    try:
        text = known.table(probe.target.namespace)
        if not text:
            return WallFacts("none")
        table = _read_table(text)
        found = evaluate(table, _with_socket(known.reconciler, probe))
        refused = refused_by_first_port(table, probe.packet)
    except NotUnderstoodError as error:
        return WallFacts("unknown", why=str(error))
    except (OSError, KeyError, EnforceError) as error:
        return WallFacts("unknown", why=f"it cannot be read: {error}")
    outcomes = tuple(sorted(one.value for one in found.possible)) if found.outcomes else ()
    wall = read_wall(text, probe.target.namespace)
    return WallFacts(
        found.verdict.value,
        found.way,
        outcomes,
        audience=_audience(wall, probe),
        redirected=wall.redirected,
        closed_when_redirected=refused,
    )


def _audience(wall: Wall, probe: Probe) -> tuple[str, ...] | None:
    """That of the wall's entry for the packet: the exact address before the wildcard."""
    destination = probe.packet.destination
    found = {
        one.address: one.audience
        for one in wall.entries
        if (one.family, one.proto, one.port)
        == (destination.version, probe.target.proto, probe.target.port)
    }
    return found.get(destination, found.get(None))


def _with_socket(reconciler: Reconciler, probe: Probe) -> Packet:
    """The packet with the socket that the kernel finds for it. Raises OSError."""
    packet, namespace, port = probe.packet, probe.target.namespace, probe.target.port
    if probe.target.proto is not Proto.TCP:
        return packet
    path = reconciler.observer.namespaces.path(namespace)
    there = reconciler.observer.namespaces.listeners(namespace, port)
    found = reached(there, packet.proto, packet.destination, port)
    if found is None:
        return packet
    number = birth_cgroups(path, port).get(found.inode)
    above = ancestors(number, _likely(reconciler, probe.target.listener)) if number else {}
    if above is None:
        raise EnforceError("the cgroup in which its socket was created is gone")
    return replace(packet, socket=Socket(above))


def _likely(reconciler: Reconciler, listener: Listener | None) -> Iterator[str]:
    for pid in listener.pids if listener else ():
        if process := reconciler.observer.process(pid):
            yield process.cgroup


def _socket(reconciler: Reconciler, listener: Listener) -> ReachedSocket:
    process = next(filter(None, map(reconciler.observer.process, listener.pids)), None)
    return ReachedSocket(
        proto=listener.proto,
        addr=listener.address_text,
        port=listener.port,
        inode=listener.inode,
        pids=listener.pids,
        command=process.comm if process else "",
        user=user_name(listener.uid),
        cgroup=process.cgroup if process else "",
    )


def _purpose(known: _Known, listener: Listener) -> Purpose | None:
    reconciler, key = known.reconciler, (listener.namespace, listener.inode)
    for workload, one in labelled(reconciler):
        if (one.listener.namespace, one.listener.inode) == key:
            label = one.label
            skipped = (
                each for each in reconciler.decision.skipped if each.listener == one.listener
            )
            return Purpose(
                workload=workload.name,
                stack=workload.stack.value,
                root_pid=workload.id.root_pid,
                role=label.role.value,
                confidence=label.confidence,
                evidence=label.evidence,
                audience=audience_at(one.listener, label.role, reconciler.policy, workload),
                audience_from=known.audience_from(label.role),
                no_rule=next((each.reason for each in skipped), ""),
            )
    return None


def _memberships(reconciler: Reconciler, source: Address) -> Iterator[Membership]:
    """The peer sources, the groups and the bans that contain the source."""
    files = reconciler.config.files
    for one in reconciler.peers.sources():
        for network in _holding(one.networks, source):
            static = one.kind == "static"
            where = of_network(files, ("peers", "cidrs"), network) if static else ""
            yield Membership(PEERS, one.kind, one.name, str(network), where, one.expires)
    for name, networks in reconciler.policy.groups.items():
        for network in _holding(networks, source):
            where = of_network(files, ("groups", name), network)
            yield Membership(name, "group", name, str(network), where, None)
    for adopted in reconciler.adoption.in_force():
        for host in adopted.sources:
            if host.address == source:
                yield Membership(ADOPTED, ADOPTED, adopted.name, str(host.address), "", None)
    for ban in reconciler.bans.bans():
        for network in _holding((ban.network,), source):
            yield Membership("banned", "ban", ban.reason, str(network), "", ban.expires)


def _holding(networks: Iterable[Network], source: Address) -> Iterator[Network]:
    return (one for one in networks if one.version == source.version and source in one)
