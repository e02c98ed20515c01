"""Limits on a public API: by source, in the kernel, for nobody who is a peer or the host itself."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.guarded import PEERS, Guarded, eventually
from tests.support.lab import Host, Lab
from tests.support.walls import entry, wall
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.model import KernelLog, Limits, Wall, WallEntry

API, METRICS = 8000, 9090
MANY = 12
QUICK = 0.3  # seconds; an answer on the lab's link takes 1 ms


def _public(port: int, *, limited: bool) -> list[WallEntry]:
    made = [entry(port, "public", family=family) for family in (4, 6)]
    return [replace(one, limited=limited) for one in made]


def limited(host: Host, limits: Limits) -> Wall:
    """A wall with a limited API, and a public port without limits."""
    entries = [*_public(API, limited=True), *_public(METRICS, limited=False)]
    return replace(wall(host, entries), limits=limits)


@pytest.fixture
def api(lab: Lab) -> Lab:
    """A node that serves."""
    for port in (API, METRICS):
        lab.node.listen("::", port)
    return lab


def come_in(host: Host, address: str, port: int, source: str | None = None) -> int:
    """How many of many connections, one after the other and closed at once, are accepted."""
    return sum(host.connect(address, port, QUICK, source) == "open" for _ in range(MANY))


def held_open(
    stack: ExitStack, host: Host, address: str, port: int, source: str | None = None
) -> list[socket.socket]:
    """Those of many connections that are accepted, all at the same time."""
    found = []
    for _ in range(MANY):
        with suppress(TimeoutError):
            found.append(
                stack.enter_context(host.dial(address, port, timeout=QUICK, source=source))
            )
    return found


@pytest.mark.parametrize("family", [4, 6])
def test_new_connections_are_limited_by_source(api: Lab, backend: Nftables, family: int) -> None:
    """A burst comes in, what is over it does not; peers, the host and other ports have no limit."""
    node, stranger = api.node, api.stranger
    address = node.ipv4 if family == 4 else node.ipv6
    backend.apply(node.path, limited(node, Limits(1, 4)), None)
    assert 4 <= come_in(stranger, address, API) <= 8
    assert come_in(stranger, address, METRICS) == MANY
    assert come_in(api.peer, address, API) == MANY
    assert come_in(node, address, API) == MANY


def test_another_source_has_its_own_limit(api: Lab, backend: Nftables) -> None:
    """IPv4 by address; IPv6 by /64, since every host has that many addresses."""
    node, stranger = api.node, api.stranger
    first, first6 = stranger.ipv4, stranger.ipv6
    more = "203.0.113.10", "2001:db8:bad::a", "2001:db8:bad:1::a"
    stranger.add_address(*more)
    backend.apply(node.path, limited(node, Limits(1, 6)), None)
    assert come_in(stranger, node.ipv4, API, first) < MANY
    assert come_in(stranger, node.ipv4, API, more[0]) >= 6
    assert come_in(stranger, node.ipv6, API, first6) < MANY
    assert come_in(stranger, node.ipv6, API, more[1]) <= 5
    assert come_in(stranger, node.ipv6, API, more[2]) >= 6


def test_who_waits_may_come_again(api: Lab, backend: Nftables) -> None:
    """The limit is a rate: no ban comes of it."""
    backend.apply(api.node.path, limited(api.node, Limits(2, 2)), None)
    come_in(api.stranger, api.node.ipv4, API)
    time.sleep(1.1)  # the rate is about time itself
    assert api.stranger.connect(api.node.ipv4, API, QUICK) == "open"


def test_established_connections_are_not_counted(api: Lab, backend: Nftables) -> None:
    """Only what is new is limited: a connection carries as many packets as it likes."""
    backend.apply(api.node.path, limited(api.node, Limits(1, 1, 1)), None)
    with api.stranger.dial(api.node.ipv4, API) as client:
        for _ in range(100):
            client.sendall(b"more")
            assert client.recv(64)


@pytest.mark.parametrize("family", [4, 6])
def test_concurrent_connections_are_limited_by_source(
    api: Lab, backend: Nftables, family: int
) -> None:
    """Never more than so many; one that ends makes room for one."""
    node, stranger = api.node, api.stranger
    address = node.ipv4 if family == 4 else node.ipv6
    backend.apply(node.path, limited(node, Limits(connections=5)), None)
    with ExitStack() as stack:
        found = held_open(stack, stranger, address, API)
        assert len(found) == 5
        assert len(held_open(stack, api.peer, address, API)) == MANY
        assert len(held_open(stack, stranger, address, METRICS)) == MANY
        found[0].close()
        eventually(
            lambda: stranger.connect(address, API, QUICK) == "open", "there is room for another"
        )


def test_an_exact_address_behind_a_walled_wildcard_is_limited_by_syns_only(
    api: Lab, backend: Nftables
) -> None:
    """There every packet meets the maps, not the SYN alone: only the SYN may count."""
    node = api.node
    entries = [entry(API, "peers"), replace(entry(API, "public", at=node.ipv4), limited=True)]
    wanted = replace(wall(node, entries), limits=Limits(1, 2))
    backend.apply(node.path, wanted, None)
    with api.stranger.dial(node.ipv4, API) as client:
        for _ in range(50):
            client.sendall(b"more")
            assert client.recv(64)


def test_what_a_limit_refuses_is_counted_and_remembered(api: Lab, backend: Nftables) -> None:
    """As a stranger's packets are, by source and port."""
    backend.apply(api.node.path, limited(api.node, Limits(1, 2)), None)
    come_in(api.stranger, api.node.ipv4, API)
    seen = backend.counters(api.node.path)
    assert seen.packets >= 1
    assert [(str(one.source), one.port) for one in seen.refusals] == [(api.stranger.ipv4, API)]


def test_without_a_limit_on_connections_nothing_is_tracked(api: Lab, backend: Nftables) -> None:
    """The rate alone needs no conntrack."""
    count = ["cat", "/proc/sys/net/netfilter/nf_conntrack_count"]
    for limits, tracked in ((Limits(9, 9), False), (Limits(connections=9), True)):
        backend.apply(api.node.path, limited(api.node, limits), None)
        with api.stranger.dial(api.node.ipv4, API):
            assert (api.node.run(count).stdout != "0\n") is tracked


def test_the_log_is_limited(api: Lab, backend: Nftables) -> None:
    """A flood of refusals tells the kernel's log no more than was allowed."""
    node = api.node
    one = replace(wall(node, [entry(API, "node")]), log=KernelLog(100, "wall: ", 1))
    backend.apply(node.path, one, None)
    with _nflog(node, 100) as heard:
        for _ in range(60):
            with api.stranger.open_socket(socket.AF_INET, socket.SOCK_STREAM) as caller:
                caller.setblocking(False)
                caller.connect_ex((node.ipv4, API))
        eventually(lambda: backend.counters(node.path).packets >= 60, "all were refused")
        messages = _drained(heard)
    assert 1 <= len(messages) <= 12  # the burst, and a second or two
    assert all(b"wall: \0" in message for message in messages)


def _nflog(host: Host, group: int) -> socket.socket:
    """What the kernel tells this NFLOG group (linux/netfilter/nfnetlink_log.h)."""
    import struct

    made = host.call(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12))
    made.bind((0, 0))
    command = struct.pack("=HHB3x", 5, 1, 1)  # NFULA_CFG_CMD: NFULNL_CFG_CMD_BIND
    copy = struct.pack("=HH", 10, 2) + struct.pack("!IBx", 64, 2) + bytes(2)  # copy 64 bytes
    for attribute in (command, copy):
        body = struct.pack("=BB", 0, 0) + struct.pack("!H", group) + attribute
        made.send(struct.pack("=IHHII", 16 + len(body), 0x0401, 5, 1, 0) + body)
        made.recv(4096)
    return made


def _drained(heard: socket.socket) -> list[bytes]:
    """Every message that comes, until none comes for a while (the kernel holds some back 1 s)."""
    heard.settimeout(1.5)
    found: list[bytes] = []
    with suppress(TimeoutError):
        while True:
            data = heard.recv(1 << 16)
            while len(data) >= 16:
                length = int.from_bytes(data[:4], "little")
                if int.from_bytes(data[4:6], "little") == 0x0400:  # NFULNL_MSG_PACKET
                    found.append(data[:length])
                data = data[(length + 3) & ~3 :]
    return found


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    """A node with a daemon that limits."""
    found = Guarded(lab, tmp_path / "node")
    found.configure(PEERS + "[limits]\nnew_per_second = 1\nburst = 3\n[log]\ngroup = 100\n")
    found.start()
    yield found
    if found.process is not None and found.process.poll() is None:
        found.stop()


def test_the_daemon_limits_apis_and_says_so(node: Guarded) -> None:
    """From the configuration to the packet, and off again."""
    lab = node.lab
    server = node.server(API)
    server.open("tcp", "0.0.0.0", API)
    eventually(lambda: lab.stranger.connect(lab.node.ipv4, API) == "open", "the API is open")
    node.settled()
    assert come_in(lab.stranger, lab.node.ipv4, API) <= 7
    assert come_in(lab.peer, lab.node.ipv4, API) == MANY
    named = [(one["source"], one["role"]) for one in node.ask("blocked")["sources"]]  # type: ignore[attr-defined]
    assert named == [(lab.stranger.ipv4, "limit")]
    orders = node.ask("status")["orders"]
    assert orders["limits"] == {"new_per_second": 1, "burst": 3, "connections": None}  # type: ignore[index]
    assert node.ask("status")["safe"] is True
    node.configure(PEERS)
    node.ask("reload")
    assert come_in(lab.stranger, lab.node.ipv4, API) == MANY
    listed = subprocess.run(
        lab.node.command(["nft", "list", "chain", "inet", "vllmwall", "strangers"]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "log" not in listed.stdout
