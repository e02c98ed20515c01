"""No bytes of a stranger come out of a workload's socket, whatever the packets look like.

Thousands of generated shapes (see `tests.support.shapes`) against every kind of wall; the same
shapes without one show that they would arrive. The evaluator says of each packet what the kernel
did. VLLMWALL_SHAPES: how many for each wall; the seed is fixed, VLLMWALL_SEED is another one.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from random import Random

import pytest

from tests.support.cgroups import cgroup, inside
from tests.support.lab import NODE, STRANGER, Lab
from tests.support.shapes import Shape, Shapes, checked, header, seen_by_nft
from tests.support.waiting import eventually
from tests.support.walls import everywhere, wall
from vllmwall.enforce.boot import boot_script
from vllmwall.enforce.evaluator import Socket, Table, evaluate, read_table
from vllmwall.enforce.evaluator.socket_lookup import reached
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.model import Guard, Listener, Mode, Proto, Wall, WallEntry

SHAPES = int(os.environ.get("VLLMWALL_SHAPES", "1500"))
SEED = int(os.environ.get("VLLMWALL_SEED", "1"))
STORE, SUBFLOW = 29500, 29501
PORTS = (STORE, SUBFLOW)
_WATCH = """table inet watch {
    set front4 { typeof ip id; flags dynamic; size 65535; }
    set front6 { typeof ip6 flowlabel; flags dynamic; size 65535; }
    set behind4 { typeof ip id; flags dynamic; size 65535; }
    set behind6 { typeof ip6 flowlabel; flags dynamic; size 65535; }
    set answered { typeof tcp ackseq; flags dynamic; size 65535; }
    chain front {
        type filter hook input priority -250
        iif eth0 meta nfproto ipv4 update @front4 { ip id }
        iif eth0 meta nfproto ipv6 update @front6 { ip6 flowlabel }
    }
    chain behind {
        type filter hook input priority 10
        iif eth0 meta nfproto ipv4 update @behind4 { ip id }
        iif eth0 meta nfproto ipv6 update @behind6 { ip6 flowlabel }
    }
    chain answers {
        type filter hook output priority 0
        tcp sport { 29500, 29501 } tcp flags syn update @answered { tcp ackseq }
        tcp sport { 29500, 29501 } drop
    }
}
"""
_TRACKING = """table inet other {
    chain input {
        type filter hook input priority 0
        ct state invalid counter
    }
}
"""
_JOB = """
import socket, sys, time
held = []
for port, protocol in ((29500, 0), (29501, 262)):
    held.append(socket.socket(socket.AF_INET6, socket.SOCK_STREAM, protocol))
    held[-1].bind(("::", port))
    held[-1].listen(1000)
print("ready", flush=True)
time.sleep(600)
"""
LISTENERS = tuple(Listener(0, Proto.TCP, port, ip_address("::")) for port in PORTS)


@dataclass(frozen=True)
class Kind:
    """One kind of wall. ``stops``: strangers get in nowhere; ``tracks``: the kernel reassembles
    IPv6 before the wall, so its fragments are not judged one by one."""

    name: str
    stops: bool = True
    tracks: bool = False


KINDS = [
    Kind("none", stops=False),
    Kind("audit", stops=False),
    Kind("rules"),
    Kind("guard"),
    Kind("lockdown", tracks=True),
    Kind("nat", tracks=True),
    Kind("others track", tracks=True),
    Kind("others track later", tracks=True),
    Kind("boot"),
]


def entries() -> list[WallEntry]:
    """TCP and UDP, both families, for peers."""
    return [one for port in PORTS for one in everywhere(port, "peers")]


def applied(kind: Kind, lab: Lab, backend: Nftables, guard: Guard) -> None:
    """Put up such a wall on the node."""
    whole = wall(lab.node, entries())
    walls: dict[str, Wall] = {
        "audit": replace(whole, mode=Mode.AUDIT),
        "rules": whole,
        "guard": replace(
            whole,
            entries=frozenset(one for one in whole.entries if one.proto is Proto.UDP),
            guards=frozenset({guard}),
            answering=True,
        ),
        "lockdown": replace(whole, entries=frozenset(), lockdown=True),
        "nat": replace(whole, redirected=True),
        "others track": whole,
        "others track later": whole,
    }
    if kind.name == "others track":
        lab.node.run(["nft", "-f", "-"], stdin=_TRACKING)
    if kind.name in walls:
        backend.apply(lab.node.path, walls[kind.name], None)
    elif kind.name == "boot":
        lab.node.run(["nft", "-f", "-"], stdin=boot_script(whole))
    if kind.name == "others track later":
        lab.node.run(["nft", "-f", "-"], stdin=_TRACKING)


@dataclass
class Seen:
    """What came of the shapes: markers out of sockets, SYNs that were answered, and the numbers of
    packets before and behind the wall."""

    delivered: set[bytes]
    answered: set[bytes]
    front: set[tuple[int, int]]
    behind: set[tuple[int, int]]


def fired(lab: Lab, shapes: list[Shape], receivers: list[socket.socket]) -> Seen:
    """Send all of them, and look what came in."""
    families = {4: socket.AF_INET, 6: socket.AF_INET6}
    delivered: set[bytes] = set()
    with contextlib.ExitStack() as stack:
        raw = {
            version: stack.enter_context(
                lab.stranger.call(
                    lambda of=family: socket.socket(of, socket.SOCK_RAW, socket.IPPROTO_RAW)
                )
            )
            for version, family in families.items()
        }
        for number, shape in enumerate(shapes):
            for packet in shape.packets.values():
                version = packet[0] >> 4
                with contextlib.suppress(OSError):  # the sender's kernel refuses a few
                    raw[version].sendto(packet, (NODE[version == 6], 0))
            if number % 50 == 49:
                delivered |= received(receivers)
    time.sleep(0.3)  # the link takes 1 ms
    delivered |= received(receivers)
    return Seen(delivered, answered(lab), numbers(lab, "front"), numbers(lab, "behind"))


def received(receivers: list[socket.socket]) -> set[bytes]:
    found = set()
    for one in receivers:
        with contextlib.suppress(BlockingIOError):
            while True:
                data = one.recv(65536)
                assert data.startswith(b"stranger")
                found.add(data[8:12])
    return found


def listed(lab: Lab, name: str) -> list[int]:
    text = lab.node.run(["nft", "-n", "list", "set", "inet", "watch", name]).stdout
    return [int(one) for one in re.findall(r"\d+", text.partition("elements = {")[2])]


def answered(lab: Lab) -> set[bytes]:
    """The markers of SYNs: an answer acknowledges the number after theirs."""
    return {struct.pack("!I", one - 1) for one in listed(lab, "answered")}


def numbers(lab: Lab, name: str) -> set[tuple[int, int]]:
    return {(version, one) for version in (4, 6) for one in listed(lab, f"{name}{version}")}


@pytest.fixture
def job(lab: Lab) -> Iterator[tuple[Guard, list[socket.socket]]]:
    """Listeners over TCP and MPTCP in a guarded cgroup, and sockets over UDP and UDP-Lite."""
    with cgroup(f"/vw-shapes-{os.getpid()}") as folder, contextlib.ExitStack() as stack:
        process = lab.node.popen(inside(folder, [sys.executable, "-c", _JOB]))
        stack.callback(process.wait)
        stack.callback(process.kill)
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        receivers = []
        for port in PORTS:
            made = stack.enter_context(lab.node.open_socket(socket.AF_INET6, socket.SOCK_DGRAM))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            made.bind(("::", port))
            made.setblocking(False)
            receivers.append(made)
        yield Guard(1, folder.stat().st_ino, f"/{folder.name}"), receivers


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_shape_carries_a_stranger_in(
    lab: Lab, backend: Nftables, job: tuple[Guard, list[socket.socket]], kind: Kind
) -> None:
    """And where no wall is, or one that only counts, hundreds do."""
    guard, receivers = job
    applied(kind, lab, backend, guard)
    lab.node.run(["nft", "-f", "-"], stdin=_WATCH)
    ends = dict(zip((4, 6), STRANGER, strict=True)), dict(zip((4, 6), NODE, strict=True))
    shapes = Shapes(Random(SEED), *ends, PORTS).some(SHAPES)
    seen = fired(lab, shapes, receivers)
    assert len(seen.front) > SHAPES // 2
    if kind.stops:
        assert (set(), set()) == (seen.delivered, seen.answered)
    else:
        assert len(seen.delivered) > SHAPES // 8
        assert len(seen.answered) > SHAPES // 8
    if kind.name != "none":
        _agrees(read_table(backend.listed(lab.node.path)), kind, shapes, seen, guard)


def _agrees(table: Table, kind: Kind, shapes: list[Shape], seen: Seen, guard: Guard) -> None:
    """The evaluator says of each packet that came to the wall what the kernel did with it."""
    compared, wrong = 0, []
    for shape in shapes:
        for number, raw in shape.packets.items():
            key = raw[0] >> 4, number & 0xFFFFF if raw[0] >> 4 == 6 else number & 0xFFFF
            packet = seen_by_nft(raw) if shape.is_whole or key[0] == 6 else None
            if packet is None or key not in seen.front or (kind.tracks and not shape.is_whole):
                continue
            found = reached(LISTENERS, packet.proto, packet.destination, packet.dport or 0)
            met = Socket({1: guard.id}) if found else None
            judged = evaluate(table, replace(packet, socket=met))
            compared += 1
            if (judged.verdict.value == "accept") is not (key in seen.behind):
                wrong.append((raw.hex(), packet, judged.way[-2:]))
    assert compared > SHAPES // 3
    assert [] == wrong[:3]


@pytest.mark.parametrize("kind", [one for one in KINDS if one.stops], ids=lambda one: one.name)
@pytest.mark.parametrize("version", [4, 6])
def test_path_mtu_discovery_and_a_peer_s_fragments_work(
    lab: Lab,
    backend: Nftables,
    job: tuple[Guard, list[socket.socket]],
    kind: Kind,
    version: int,
) -> None:
    """The ICMP error arrives that says how long packets may be; long datagrams of peers arrive."""
    guard, (receiver, _) = job
    applied(kind, lab, backend, guard)
    ours, theirs = NODE[version == 6], STRANGER[version == 6]
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    level, mtu = (socket.IPPROTO_IPV6, 24) if version == 6 else (socket.IPPROTO_IP, 14)
    with lab.node.open_socket(family, socket.SOCK_DGRAM) as asking:
        asking.setsockopt(level, 23 if version == 6 else 10, 2)  # IP_PMTUDISC_DO
        asking.connect((theirs, 9))
        send_raw(lab, too_big(version, ours, theirs, asking.getsockname()[1]), ours)
        eventually(lambda: asking.getsockopt(level, mtu) == 1300, "the path's MTU is known")
    with lab.peer.open_socket(family, socket.SOCK_DGRAM) as sending:
        sending.sendto(b"x" * 6000, (ours, STORE))
        if kind.name != "lockdown":  # which opens no internal port
            eventually(lambda: len(_or_empty(receiver)) == 6000, "the datagram is here")


def _or_empty(receiver: socket.socket) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return receiver.recv(65536)
    return b""


def send_raw(lab: Lab, packet: bytes, to: str) -> None:
    """From the stranger's namespace."""
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with lab.stranger.call(
        lambda: socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    ) as raw:
        raw.sendto(packet, (to, 0))


def too_big(version: int, ours: str, theirs: str, port: int) -> bytes:
    """The answer of a router to a datagram from our port that was too long for a path of 1300."""
    datagram = struct.pack("!HHHH", port, 9, 1400, 0)
    ends = {version: ours}, {version: theirs}
    quoted = header(version, *ends, 17, datagram + bytes(64), 7)
    if version == 4:
        content = checked(struct.pack("!BBHHH", 3, 4, 0, 0, 1300) + quoted)
        return header(4, ends[1], ends[0], 1, content, 7)
    content = struct.pack("!BBHI", 2, 0, 0, 1300) + quoted
    pseudo = ip_address(theirs).packed + ip_address(ours).packed
    pseudo += struct.pack("!II", len(content), 58)
    return header(6, ends[1], ends[0], 58, checked(content, pseudo), 7)
