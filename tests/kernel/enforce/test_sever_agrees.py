"""`refused` and the kernel give the same verdict: random walls, random connections, made real."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address
from itertools import product

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.support.lab import NODE, PEER, STRANGER, Host, Lab
from tests.support.strategies import on_one_network
from vllmwall.cidr import merged
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.enforce.sever import Verdicts, sever
from vllmwall.linux.connections import Connection
from vllmwall.linux.netns import inode_of
from vllmwall.model import Network, Proto, Wall, WallEntry

SECOND = ("192.0.2.77", "2001:db8::77")
MORE = ("203.0.113.10", "198.51.100.20", "2001:db8:bad::a", "2001:db8:50::20")
OUTSIDE = (*PEER, *STRANGER, *MORE)
INSIDE = (*NODE, *SECOND, "127.0.0.1", "::1")
# A socket for both families, two for one number, one for an address, and one written mapped.
BINDS = [
    ("::", 7001, False),
    ("0.0.0.0", 7002, False),
    ("::", 7002, True),
    (NODE[0], 7003, False),
    (SECOND[1], 7003, False),
    (f"::ffff:{NODE[0]}", 7004, False),
]
PORTS = (7001, 7002, 7003, 7004)
OUTBOUND, ELSEWHERE = 7005, 9000
SETTLE = 0.05  # seconds after the last answer that came; a reply on the lab's link takes 1 ms


@dataclass(frozen=True)
class Attempt:
    """A connection to try: to a listener of the node, or from the node outward, then from its
    own ``source_port`` (0: any)."""

    source: str
    target: tuple[str, int]
    source_port: int = 0

    @property
    def is_outbound(self) -> bool:
        """From the node to somebody else's listener."""
        return self.target[1] == ELSEWHERE


def _alike(one: str, other: str) -> bool:
    return (":" in one) == (":" in other)


def _among(
    sources: Iterable[str], targets: Iterable[tuple[str, int]], *source_ports: int
) -> st.SearchStrategy[Attempt]:
    every = product(sources, targets, source_ports or (0,))
    return st.sampled_from([Attempt(*one) for one in every if _alike(one[0], one[1][0])])


WILD = list(product(NODE + SECOND, (7001, 7002)))
EXACT = [(NODE[0], 7003), (SECOND[1], 7003), (NODE[0], 7004)]
ABROAD = [(address, ELSEWHERE) for address in STRANGER + MORE]
inbound = _among(OUTSIDE, WILD + EXACT)
own = _among(INSIDE, [*WILD, *EXACT, *product(("127.0.0.1", "::1"), (7001, 7002))])
outbound = _among(NODE + SECOND, ABROAD, 0, OUTBOUND)
attempts = st.lists(
    st.one_of(inbound, inbound, inbound, own, outbound), min_size=8, max_size=24, unique=True
)

AUDIENCES = [("public",), ("peers",), ("node",), ("monitoring",), ("monitoring", "peers")]
PLACES = list(product([4, 6, *NODE, *SECOND], (*PORTS, OUTBOUND)))


@st.composite
def entries(draw: st.DrawFn) -> frozenset[WallEntry]:
    """Entries for any address of a family, or for one, TCP mostly."""
    return frozenset(
        WallEntry(
            at if isinstance(at, int) else ip_address(at).version,
            draw(st.sampled_from([Proto.TCP, Proto.TCP, Proto.TCP, Proto.UDP])),
            port,
            draw(st.sampled_from(AUDIENCES)),
            None if isinstance(at, int) else ip_address(at),
        )
        for at, port in draw(st.lists(st.sampled_from(PLACES), min_size=6, unique=True))
    )


@st.composite
def networks(draw: st.DrawFn) -> tuple[Network, ...]:
    """Networks around addresses that connect, so that they are in it or just outside."""
    found: list[Network] = []
    for address in draw(st.lists(st.sampled_from(OUTSIDE), max_size=3)):
        if ":" in address:
            size = draw(st.sampled_from([128, 127, 64, 32, 0]))
            found.append(IPv6Network((address, size), strict=False))
        else:
            size = draw(st.sampled_from([32, 31, 28, 24, 1, 0]))
            found.append(IPv4Network((address, size), strict=False))
    return merged(found)


@st.composite
def walls(draw: st.DrawFn) -> Wall:
    """A wall that speaks of the ports and addresses that are tried."""
    named = {"peers": draw(networks()), "monitoring": draw(networks())}
    banned = draw(st.just(()) | networks())
    failsafe = draw(st.frozensets(st.sampled_from(PORTS), max_size=1))
    return Wall(0, draw(entries()), named, banned=banned, failsafe=failsafe)


@pytest.fixture(scope="module")
def stage() -> Iterator[Lab]:
    """A node that listens in every way, and a stranger who listens too."""
    with Lab() as lab:
        lab.node.add_address(*SECOND)
        lab.stranger.add_address(*MORE)
        for address, port, v6only in BINDS:
            lab.node.listen(address, port, v6only=v6only)
        lab.stranger.listen("::", ELSEWHERE)
        yield lab


@on_one_network
@given(wanted=walls(), tried=attempts)
def test_the_kernel_refuses_what_refused_says_and_sever_resets_just_that(
    stage: Lab, backend: Nftables, wanted: Wall, tried: list[Attempt]
) -> None:
    """What still gets an answer through the wall is what no entry and no ban refuses, and it
    lives on."""
    node = stage.node
    wanted = replace(wanted, namespace=inode_of(node.path))
    backend.remove(node.path)
    with ExitStack() as held:
        made = dict(_connected(stage, tried, held))
        assert set(made) == _answered(made, set(made))
        backend.apply(node.path, wanted, None)
        expected = {client for client in made if Verdicts(wanted).refused(made[client])}
        event("some refused" if expected else "all through")
        through = _answered(made, set(made) - expected)
        assert _shown(made, set(made) - expected) == _shown(made, through)
        found = sever(node.path, wanted)
        assert {_ends(made[client]) for client in expected} == set(map(_ends, found.connections))
        assert _shown(made, through) == _shown(made, _answered(made, through))


def _connected(
    lab: Lab, tried: Iterable[Attempt], held: ExitStack
) -> Iterator[tuple[socket.socket, Connection]]:
    """The attempts that found a listener, and what the node knows of each."""
    for attempt in tried:
        with suppress(OSError):
            client = _dial(lab, attempt)
            held.enter_context(closing(client))
            yield client, _seen_by_the_node(attempt, client)


def _dial(lab: Lab, attempt: Attempt) -> socket.socket:
    """Connect, and have the connection leave nothing behind when it is closed."""
    family = socket.AF_INET6 if ":" in attempt.source else socket.AF_INET
    made = _host(lab, attempt).open_socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(5)
        made.bind((attempt.source, attempt.source_port))
        made.connect(attempt.target)
    except OSError:
        made.close()
        raise
    return made


def _host(lab: Lab, attempt: Attempt) -> Host:
    if attempt.is_outbound or attempt.source in INSIDE:
        return lab.node
    return lab.peer if attempt.source in PEER else lab.stranger


def _seen_by_the_node(attempt: Attempt, client: socket.socket) -> Connection:
    mine, its = client.getsockname()[:2], client.getpeername()[:2]
    local, remote = (mine, its) if attempt.is_outbound else (its, mine)
    here = attempt.source in INSIDE and not attempt.is_outbound
    return Connection(ip_address(local[0]), local[1], ip_address(remote[0]), remote[1], here=here)


def _answered(clients: Iterable[socket.socket], expected: set[socket.socket]) -> set[socket.socket]:
    """Who gets an answer: all ask at once; the end is when those expected have theirs, and a
    little later. An answer that nobody expects takes no longer than those."""
    for client in clients:
        with suppress(ConnectionError):
            client.sendall(b"x")
    waiting, found = set(clients), set[socket.socket]()
    deadline = time.monotonic() + 10
    while waiting and time.monotonic() < deadline:
        ready = select.select(waiting, [], [], SETTLE)[0]
        if not ready and expected <= found:
            break
        for client in ready:
            waiting.discard(client)
            with suppress(ConnectionError):
                if client.recv(64):
                    found.add(client)
    return found


def _ends(one: Connection) -> tuple[object, ...]:
    return one.local, one.local_port, one.remote, one.remote_port


def _shown(
    made: dict[socket.socket, Connection], clients: set[socket.socket]
) -> set[tuple[object, ...]]:
    """Clients by what a person can read."""
    return {_ends(made[client]) for client in clients}
