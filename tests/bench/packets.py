"""What a packet's way through the wall costs: new connections a second, and bytes a second.

Method: pairs.c holds both ends of each connection in one thread, so nothing but the rules
differs between two servers and nobody waits for a core. Each server is a host of its own, with
its rules set up once. In every round each server gets one short slice, in an order drawn by
lot; a ratio is the median over the rounds of a server's figure by that of the bare server in
the same round. The bare server appears twice: how far its two figures are apart is the noise.

The client is a peer and its port is walled, so its packets take the longest way that lets them
in. The chain of iptables has a rule a port, as pollers write them: not this peer, drop.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from statistics import median

from tests.bench.programs import Conversation, built
from tests.bench.rows import Goal, Row
from tests.bench.stage import Stage, own_cgroup
from tests.kernel.walls import entry, wall
from tests.lab import PEER, Host
from vllmwall.enforce.nftables import Nftables
from vllmwall.model import Guard, Wall

PART = "packet path"
_PORTS = (10, 1000, 10000)
_FIRST_PORT = 20000
_PUBLIC_PORT = 8000
_GUARDS = 100
_FLAT_ENOUGH = Goal("≥", 0.97, "ratio")
_BARE, _AGAIN = "no firewall", "no firewall, again"

Measured = dict[str, list[float]]


@dataclass(frozen=True)
class Server:
    """A host with some rules, and the port to connect to. ``prepare`` puts the rules up."""

    name: str
    prepare: Callable[[Host], None]
    port: int = _FIRST_PORT
    goal: Goal | None = None


def measure(stage: Stage) -> Iterator[Row]:
    """Both kinds of traffic, all servers."""
    with contextlib.ExitStack() as stack:
        servers = [*_servers(), *_guarded_servers(stack)]
        pairs = stack.enter_context(
            Conversation(stage.lab.peer, [str(built("pairs")), stage.lab.peer.path])
        )
        for server, number in zip(servers, count(1), strict=False):
            stage.progress(f"{PART}: {server.name}")
            host = stage.lab.host(
                f"server{number}", f"198.51.100.{number}", f"2001:db8:5::{number}"
            )
            server.prepare(host)
            pairs.ask(f"add {host.path} {host.ipv4} {server.port}")
        connects = _rounds(stage, pairs, servers, "connect")
        bulk = _rounds(stage, pairs, servers[: 1 + 1 + 2 * len(_PORTS)], "bulk")
    yield from rows("connections", "1/s", connects, servers)
    yield from rows(
        "bulk",
        "Gbit/s",
        {name: [8 * one / 1e9 for one in each] for name, each in bulk.items()},
        servers,
    )


def rows(kind: str, unit: str, measured: Measured, servers: list[Server]) -> Iterator[Row]:
    """A row a server, beside the bare one; and the largest wall beside the smallest."""
    for server in servers:
        if server.name in measured:
            yield _row(kind, unit, measured, (server.name, _BARE), server.goal)
    small, large = _wall_name(_PORTS[0]), _wall_name(_PORTS[-1])
    yield _row(f"{kind}, flat", unit, measured, (large, small), _FLAT_ENOUGH)


def _row(kind: str, unit: str, measured: Measured, pair: tuple[str, str], goal: Goal | None) -> Row:
    name, beside = pair
    mine, other = measured[name], measured[beside]
    if name == beside:
        return Row(PART, f"{kind}: {name}", median(mine), unit, note=f"{len(mine)} rounds")
    ratio = median(one / two for one, two in zip(mine, other, strict=True))
    return Row(PART, f"{kind}: {name}", median(mine), unit, beside, median(other), ratio, goal)


def _rounds(stage: Stage, pairs: Conversation, servers: list[Server], verb: str) -> Measured:
    measured: Measured = {server.name: [] for server in servers}
    order = list(enumerate(servers))
    for number in range(stage.scale.rounds):
        stage.progress(f"{PART}: {verb}, round {number + 1} of {stage.scale.rounds}")
        random.shuffle(order)
        for index, server in order:
            done, nanoseconds = pairs.ask(f"{verb} {index} {stage.scale.slice_ms}").split()
            measured[server.name].append(int(done) / int(nanoseconds) * 1e9)
    return measured


def _servers() -> list[Server]:
    walls = [Server(_wall_name(n), _walled(n), goal=_FLAT_ENOUGH) for n in _PORTS]
    chains = [Server(f"iptables, {n:,} rules", _chain(n)) for n in _PORTS]
    return [Server(_BARE, _nothing), Server(_AGAIN, _nothing), *walls, *chains]


def _guarded_servers(stack: contextlib.ExitStack) -> list[Server]:
    """A public port without a rule: its SYNs meet the guards, which look the socket up."""
    cgroups = [stack.enter_context(own_cgroup()) for _ in range(_GUARDS)]
    guards = frozenset(Guard(1, path.stat().st_ino, f"/{path.name}") for path in cgroups)

    def server(these: frozenset[Guard]) -> Server:
        def prepare(host: Host) -> None:
            bare = wall(host, [])
            _apply(host, Wall(bare.namespace, bare.entries, bare.networks, guards=these))

        return Server(f"public port, {len(these)} guards", prepare, _PUBLIC_PORT, _FLAT_ENOUGH)

    return [server(frozenset()), server(guards)]


def _wall_name(ports: int) -> str:
    return f"wall, {ports:,} ports"


def _nothing(host: Host) -> None:
    """No rules."""


def _walled(ports: int) -> Callable[[Host], None]:
    def prepare(host: Host) -> None:
        _apply(host, wall(host, [entry(_FIRST_PORT + n, "peers") for n in range(ports)]))

    return prepare


def _apply(host: Host, wanted: Wall) -> None:
    backend = Nftables()
    backend.apply(host.path, wanted, None)
    standing = backend.read_back(host.path)
    assert wanted == standing, f"the wall of {host.name} does not stand"


def _chain(rules: int) -> Callable[[Host], None]:
    def prepare(host: Host) -> None:
        ports = range(_FIRST_PORT, _FIRST_PORT + rules)
        lines = [f"-A INPUT -p tcp --dport {port} ! -s {PEER[0]} -j DROP" for port in ports]
        host.run(["iptables-restore"], stdin="\n".join(["*filter", *lines, "COMMIT", ""]))

    return prepare
