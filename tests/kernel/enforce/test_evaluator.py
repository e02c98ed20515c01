"""The evaluator and the kernel give the same verdict: random walls, random packets, made real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from itertools import product
from pathlib import Path
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.cgroups import cgroup, inside
from tests.support.lab import NODE, Lab
from tests.support.random_packets import Range, is_plain
from tests.support.strategies import on_one_network, walls
from vllmwall.enforce.evaluator import Judgement, Packet, Socket, Verdict, evaluate, read_table
from vllmwall.enforce.evaluator.socket_lookup import reached
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.linux.netns import inode_of
from vllmwall.model import Address, Guard, Limits, Listener, Mode, Proto, Wall, WallEntry

A_NODE = ip_address(NODE[0]), ip_address(NODE[1])
# Sockets for one family, for both, for one address, and one written mapped; by where they live.
BINDS = {
    "": [("0.0.0.0", 8000, False), ("::", 9000, False), ("0.0.0.0", 22, False)],
    "outer": [("::", 7001, False), ("0.0.0.0", 7002, False), (NODE[0], 29500, False)],
    "outer/inner": [
        ("::", 7002, True),
        (NODE[1], 7003, False),
        (f"::ffff:{NODE[0]}", 7004, False),
        ("::", 65535, False),
        ("::", 29500, True),
        ("::", 2222, False),
    ],
}
LISTENED = frozenset(port for binds in BINDS.values() for _, port, _ in binds)
LISTEN = """
import json, socket, sys
held = []
for address, port, v6only in json.loads(sys.argv[1]):
    held.append(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET))
    held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in address:
        held[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    held[-1].bind((address, port))
    held[-1].listen(1)
print("ready", flush=True)
sys.stdin.read()
"""
FLAGS = [{"syn"}] * 6 + [{"syn", "ack"}, {"ack"}, {"fin", "ack"}, {"rst"}, {"syn", "psh"}, {"fin"}]
FLAGS += [{"syn", "rst"}, {"syn", "fin"}, set()]
PACKETS = 100
# Has some of everything: chance alone leaves a kind of packet out now and then.
FULL = Wall(
    0,
    frozenset(
        WallEntry(family, Proto.TCP, port, (audience,), limited=audience == "public")
        for family in (4, 6)
        for port, audience in ((8000, "public"), (9000, "public"), (29500, "peers"))
    ),
    {"peers": (ip_network("10.9.0.0/24"), ip_network("2a00:9::/64"))},
    guards=frozenset({Guard(1, 0), Guard(1, 1)}),
    failsafe=frozenset({22}),
    answering=True,
    banned=(ip_network("11.9.0.0/24"), ip_network("2a00:b::/64")),
    limits=Limits(3, 2),
)


@dataclass(frozen=True)
class Stage:
    """The node as a target, and what listens on it in which cgroups."""

    range: Range
    listeners: tuple[Listener, ...]
    cgroups: dict[Listener, dict[int, int]]
    guards: tuple[Guard, ...]
    seen: Counter[str]

    def socket(self, packet: Packet) -> Socket | None:
        """The socket that the kernel finds for a packet."""
        found = reached(self.listeners, packet.proto, packet.destination, packet.dport or 0)
        return Socket(self.cgroups[found]) if found else None


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Listeners in a cgroup, in one below it, and in none of ours."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        outer = stack.enter_context(cgroup(f"/vw-evaluate-{os.getpid()}"))
        (outer / "inner").mkdir()
        stack.callback((outer / "inner").rmdir)
        one, two = outer.stat().st_ino, (outer / "inner").stat().st_ino
        guards = (Guard(1, one, f"/{outer.name}"), Guard(2, two, f"/{outer.name}/inner"))
        ids = {"": {}, "outer": {1: one}, "outer/inner": {1: one, 2: two}}
        found = {}
        for place, binds in BINDS.items():
            folder = {"": None, "outer": outer, "outer/inner": outer / "inner"}[place]
            stack.enter_context(_listening(lab, folder, binds))
            for address, port, v6only in binds:
                made = Listener(0, Proto.TCP, port, ip_address(address), v6only=v6only)
                found[made] = ids[place]
        target = Range(lab)
        stack.callback(target.close)
        seen: Counter[str] = Counter()
        yield Stage(target, tuple(found), found, guards, seen)
    assert seen["accept"] + seen["drop"] + seen["reject"] > 4000, seen
    assert {"accept", "drop", "reject"} <= seen.keys(), seen
    for kind in ("guarded drop", "lockdown", "banned", "limited"):
        assert seen[kind] > 0, seen


class _listening:  # noqa: N801 a context manager, used like a function
    """A process that listens, from inside a cgroup if one is given."""

    def __init__(self, lab: Lab, folder: Path | None, binds: Sequence[object]) -> None:
        argv = [sys.executable, "-c", LISTEN, json.dumps(binds)]
        self._argv = lab.node.command(inside(folder, argv) if folder else argv)

    def __enter__(self) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._argv, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        assert "ready\n" == self._process.stdout.readline()

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=20)


@st.composite
def guarded_walls(draw: st.DrawFn) -> Wall:
    """Any wall that decide could make, with guards; the numbers stand for those of the stage."""
    wall = draw(walls())
    named = sorted(wall.networks.keys())
    audience = draw(st.sampled_from([("peers",), ("node",), (named[0],), tuple(named)]))
    limits = draw(st.sampled_from([None, Limits(3, 2), Limits(connections=2), Limits(1, 1, 1)]))
    return replace(
        wall,
        entries=_with_doors(draw, wall, limits),
        limits=limits,
        mode=draw(st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.AUDIT])),
        guards=frozenset(Guard(1, n) for n in draw(st.sets(st.integers(0, 1), min_size=1))),
        guard_audience=audience,
        failsafe=draw(st.frozensets(st.sampled_from([22, 2222, 7003]))),
        lockdown=draw(st.sampled_from([False, False, True])),
        banned=wall.banned if draw(st.booleans()) else (),
        answering=draw(st.booleans()),
    )


def _with_doors(draw: st.DrawFn, wall: Wall, limits: Limits | None) -> frozenset[WallEntry]:
    """The wall's own entries, and some for the node's addresses and for its listeners' ports."""
    audiences = [("public",), ("public",), ("node",), *((name,) for name in sorted(wall.networks))]
    places = product([4, 6, *A_NODE], sorted(LISTENED), [Proto.TCP, Proto.UDP])
    found = {_place(one): replace(one, limited=False) for one in wall.entries}
    for at, port, proto in draw(st.lists(st.sampled_from(list(places)), max_size=8)):
        family = at if isinstance(at, int) else at.version
        address = None if isinstance(at, int) else at
        audience = draw(st.sampled_from(audiences))
        limited = limits is not None and (proto, audience) == (Proto.TCP, ("public",))
        one = WallEntry(family, proto, port, audience, address, limited=limited)
        found.setdefault(_place(one), one)
    return frozenset(found.values())


def _place(one: WallEntry) -> tuple[object, ...]:
    return one.family, one.proto, one.port, one.address


@settings(on_one_network, max_examples=60)  # quick, and `explain` rests on it
@example(drawn=FULL, seed=1)
@example(drawn=replace(FULL, lockdown=True), seed=2)
@given(drawn=guarded_walls(), seed=st.integers(0, 2**32))
def test_the_evaluator_says_what_the_kernel_does(
    stage: Stage, backend: Nftables, drawn: Wall, seed: int
) -> None:
    """Packet for packet: accepted, dropped or reset, as the table read back says."""
    node = stage.range.node
    guards = frozenset(stage.guards[guard.id] for guard in drawn.guards)
    wall = replace(drawn, namespace=inode_of(node), guards=guards)
    stage.range.own([str(one) for one in _destinations(wall)])
    standing = backend.apply(node, wall, None)
    table = read_table(backend.listed(node))
    random = Random(seed)
    made = [_packet(random, standing, stage.range.fresh_port()) for _ in range(PACKETS)]
    sent = stage.range.send(made)
    judged = {
        number: evaluate(table, replace(packet, socket=stage.socket(packet)))
        for number, packet in sent.items()
    }
    expected = {number: one.possible for number, one in judged.items()}
    seen = stage.range.fates(sent, expected)
    assert len(seen) > PACKETS * 0.8
    wrong = {
        number: (sent[number], judged[number].way, f"kernel: {verdict.value}")
        for number, verdict in seen.items()
        if verdict not in expected[number]
    }
    assert {} == wrong
    stage.seen.update(verdict.value for verdict in seen.values())
    stage.seen.update(each for number in seen for each in _kinds(judged[number]))


def _kinds(judged: Judgement) -> set[str]:
    """What this packet was a test of, beside its verdict."""
    chains = {step.chain for step in judged.way}
    found = {name for name in ("lockdown", "banned", "limited") if name in chains}
    if judged.verdict is Verdict.DROP and "unlisted" in chains:
        found.add("guarded drop")
    return found | ({"depends"} if judged.verdict is Verdict.DEPENDS else set())


def _packet(random: Random, wall: Wall, sport: int) -> Packet:
    proto, destination, port = _door(random, wall)
    ours = [one for one in _sources(random, wall) if one.version == destination.version]
    if random.random() < 0.05:
        name = "icmp" if destination.version == 4 else "ipv6-icmp"
        return Packet(random.choice(ours), destination, name, flags=frozenset())
    flags = frozenset(random.choice(FLAGS)) if proto == "tcp" else frozenset[str]()
    if proto == "udp" and random.random() < 0.1:
        sport = random.choice([67, 547])
    return Packet(random.choice(ours), destination, proto, port, sport, flags)


def _door(random: Random, wall: Wall) -> tuple[str, Address, int]:
    """One that the wall speaks of, one at which somebody listens, or any; often a bit beside."""
    doors = [(e.proto.value, e.address or A_NODE[e.family // 6], e.port) for e in wall.entries]
    doors = [one for one in doors if is_plain(one[1]) or one[1] in A_NODE]
    ports = [*sorted(LISTENED), *wall.failsafe, 22, random.randint(1, 65535)]
    doors += [("tcp", random.choice(A_NODE), port) for port in random.sample(ports, 6)]
    doors += [("udp", random.choice(A_NODE), port) for port in (68, 546, *wall.failsafe_udp)]
    doors += [(proto.value, random.choice(A_NODE), port) for proto, port in wall.opened]
    proto, destination, port = random.choice(doors)
    beside = random.random()
    if beside < 0.1:
        return {"tcp": "udp", "udp": "tcp"}[proto], destination, port
    if beside < 0.2:
        return proto, random.choice([*A_NODE, *_destinations(wall)]), port
    return proto, destination, port


def _destinations(wall: Wall) -> list[Address]:
    found = (entry.address for entry in wall.entries if entry.address is not None)
    return sorted(filter(is_plain, found), key=str)


def _sources(random: Random, wall: Wall) -> list[Address]:
    """In the networks of the wall, at their edges, just outside, and anywhere."""
    found = [ip_address("198.51.100.7"), ip_address("2001:db8:50::7")]
    found += [ip_address(random.getrandbits(32)), ip_address(0x2A << 120 | random.getrandbits(120))]
    named = [one for name in sorted(wall.networks) for one in wall.networks[name]]
    for each in (*named, *wall.banned):
        first, last = int(each.network_address), int(each.broadcast_address)
        for value in (first, last, first - 1, last + 1, random.randint(first, last)):
            if 0 <= value < 1 << each.max_prefixlen:
                found.append(type(each.network_address)(value))
    return [one for one in found if is_plain(one)]
