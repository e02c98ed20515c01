"""The packet path through the wall: new connections per second, and bytes per second.

Method: pairs.c holds both ends of each connection in one thread, so only the rules differ between
two servers and no process waits for a core. Each server is a host of its own, with its rules set
up once. In every round each server gets one short slice, in random order, and the bare server gets
one before and after each. A ratio is the median over the rounds of a server's figure divided by
those of its two neighbours. A second server without rules is measured like all others: its
distance from 1 is the noise.

The client is a peer and its port is walled: the traffic within a job. At the public ports it is
an untrusted host, and in lockdown it takes the longest path that accepts a peer. The iptables chain
has one rule per port, as pollers write them: not this peer, drop.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median

from tests.bench.programs import Conversation, built
from tests.bench.rows import Goal, Row
from tests.bench.stage import Stage, own_cgroup
from tests.support.lab import PEER, Host
from tests.support.walls import entry, networks, wall
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.model import Guard, Wall

PART = "packet path"
_PORTS = (10, 1000, 10000)
_FIRST_PORT = 20000
_PUBLIC_PORT = 8000
_GUARDS = 100
_BANS = 1000
_FLAT_ENOUGH = Goal("≥", 0.97, "ratio")
_UNITS = {"connect": 1e9, "bulk": 8.0}  # factors from counts per nanosecond: 1/s, Gbit/s


@dataclass(frozen=True)
class Slice:
    """A server's rate per second, and the bare server's right before and after."""

    rate: float
    bare: float

    @property
    def ratio(self) -> float:
        """The rate as a share of the bare server's."""
        return self.rate / self.bare


Measured = dict[str, list[Slice]]


@dataclass(frozen=True)
class Server:
    """A host with some rules, and the port to connect to. ``prepare`` applies the rules."""

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
        for number, server in enumerate([_BARE, *servers]):
            stage.progress(f"{PART}: {server.name}")
            host = stage.lab.host(
                f"server{number}", f"198.51.100.{number + 1}", f"2001:db8:5::{number + 1}"
            )
            server.prepare(host)
            pairs.ask(f"add {host.path} {host.ipv4} {server.port}")
        connects = _rounds(stage, pairs, servers, "connect")
        bulk = _rounds(stage, pairs, [one for one in servers if one.port == _FIRST_PORT], "bulk")
    yield from rows("connections", "1/s", connects, servers)
    yield from rows("bulk", "Gbit/s", bulk, servers)


def rows(kind: str, unit: str, measured: Measured, servers: list[Server]) -> Iterator[Row]:
    """A row per server, compared with the bare one; and the largest wall with the smallest."""
    for server in servers:
        if slices := measured.get(server.name):
            yield Row(
                PART,
                f"{kind}: {server.name}",
                median(one.rate for one in slices),
                unit,
                _BARE.name,
                median(one.bare for one in slices),
                median(one.ratio for one in slices),
                server.goal,
                f"{len(slices)} rounds",
            )
    yield _flat(kind, unit, measured[_wall_name(_PORTS[0])], measured[_wall_name(_PORTS[-1])])


def _flat(kind: str, unit: str, small: list[Slice], large: list[Slice]) -> Row:
    """The cost of many ports relative to few, round by round."""
    ratio = median(two.ratio / one.ratio for one, two in zip(small, large, strict=True))
    value, baseline = (median(one.rate for one in each) for each in (large, small))
    name = f"{kind}, flat: {_wall_name(_PORTS[-1])}"
    beside = _wall_name(_PORTS[0])
    return Row(PART, name, value, unit, beside, baseline, ratio, _FLAT_ENOUGH)


def _rounds(stage: Stage, pairs: Conversation, servers: list[Server], verb: str) -> Measured:
    measured: Measured = {server.name: [] for server in servers}
    order = list(enumerate(servers, 1))

    def rate(index: int) -> float:
        done, nanoseconds = pairs.ask(f"{verb} {index} {stage.scale.slice_ms}").split()
        return int(done) / int(nanoseconds) * _UNITS[verb]

    for number in range(stage.scale.rounds):
        stage.progress(f"{PART}: {verb}, round {number + 1} of {stage.scale.rounds}")
        random.shuffle(order)
        before = rate(0)
        for index, server in order:
            mine, after = rate(index), rate(0)
            measured[server.name].append(Slice(mine, (before + after) / 2))
            before = after
    return measured


def _servers() -> list[Server]:
    walls = [Server(_wall_name(n), _walled(n), goal=_FLAT_ENOUGH) for n in _PORTS]
    chains = [Server(f"iptables, {n:,} rules", _chain(n)) for n in _PORTS]
    ordered = [
        Server(f"wall, {_PORTS[0]} ports, {_BANS:,} bans", _banning),
        Server(f"wall, {_PORTS[0]} ports, lockdown", _locking),
    ]
    return [Server("no firewall, again", _nothing), *walls, *ordered, *chains]


def _guarded_servers(stack: contextlib.ExitStack) -> list[Server]:
    """A public port without a rule and an untrusted client: the SYNs meet the guards, which look
    the socket up."""
    cgroups = [stack.enter_context(own_cgroup()) for _ in range(_GUARDS)]
    guards = frozenset(Guard(1, path.stat().st_ino, f"/{path.name}") for path in cgroups)

    def server(these: frozenset[Guard]) -> Server:
        def prepare(host: Host) -> None:
            bare = wall(host, [], peers=[])
            _apply(host, Wall(bare.namespace, bare.entries, bare.networks, guards=these))

        return Server(f"public port, {len(these)} guards", prepare, _PUBLIC_PORT, _FLAT_ENOUGH)

    return [server(frozenset()), server(guards)]


def _wall_name(ports: int) -> str:
    return f"wall, {ports:,} ports"


def _nothing(host: Host) -> None:
    """No rules."""


_BARE = Server("no firewall", _nothing)


def _walled(ports: int) -> Callable[[Host], None]:
    def prepare(host: Host) -> None:
        _apply(host, wall(host, [entry(_FIRST_PORT + n, "peers") for n in range(ports)]))

    return prepare


def _small(host: Host) -> Wall:
    return wall(host, [entry(_FIRST_PORT + n, "peers") for n in range(_PORTS[0])])


def _banning(host: Host) -> None:
    """A thousand bans of other addresses."""
    banned = networks(*(f"10.{n >> 8}.{n & 255}.1" for n in range(_BANS)))
    _apply(host, replace(_small(host), banned=banned))


def _locking(host: Host) -> None:
    _apply(host, replace(_small(host), lockdown=True))


def _apply(host: Host, wanted: Wall) -> None:
    backend = Nftables()
    backend.apply(host.path, wanted, None)
    assert wanted == backend.read_back(host.path), f"the wall of {host.name} is not active"


def _chain(rules: int) -> Callable[[Host], None]:
    def prepare(host: Host) -> None:
        ports = range(_FIRST_PORT, _FIRST_PORT + rules)
        lines = [f"-A INPUT -p tcp --dport {port} ! -s {PEER[0]} -j DROP" for port in ports]
        host.run(["iptables-restore"], stdin="\n".join(["*filter", *lines, "COMMIT", ""]))

    return prepare
