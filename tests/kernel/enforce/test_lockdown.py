"""Lockdown: every port of the host is closed but APIs and what was named, and the host works on."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.guarded import PEERS, Guarded, eventually
from tests.support.icmp import pings
from tests.support.lab import PEER, Host, Lab
from tests.support.severing import dialled, lives
from tests.support.walls import SILENCE, ask_all, entry, probe, wall
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.model import Proto, Wall

API, OTHER, SSH, OPEN, INTERNAL, ELSEWHERE = 8000, 7000, 22, 9100, 29500, 9000
CONFIG = PEERS + "[host]\nlockdown = true\nopen = ['tcp/9100', 'udp/9100']\n"
DOORS = [
    (proto, port)
    for proto in (Proto.TCP, Proto.UDP)
    for port in (API, OTHER, SSH, OPEN, INTERNAL, ELSEWHERE)
]


def locked(host: Host) -> Wall:
    """A wall in lockdown with an API, something internal, and a door that is open."""
    made = wall(host, [entry(API, "public"), entry(API, "public", family=6)])
    internal = [entry(INTERNAL, "peers", family=family) for family in (4, 6)]
    return replace(
        made,
        entries=made.entries.union(internal),
        lockdown=True,
        failsafe=frozenset({SSH}),
        opened=frozenset({(Proto.TCP, OPEN), (Proto.UDP, OPEN)}),
    )


@pytest.fixture
def down(lab: Lab, backend: Nftables) -> Lab:
    """A node in lockdown with an echo at every door, and echoes at the others."""
    for host in (lab.node, lab.stranger):
        for proto, port in DOORS:
            (host.listen if proto is Proto.TCP else host.listen_udp)("::", port)
    backend.apply(lab.node.path, locked(lab.node), None)
    return lab


def _seen(host: Host, address: str) -> dict[tuple[Proto, int], str]:
    return ask_all(DOORS, lambda door: probe(host, door[0], address, door[1]))


@pytest.mark.parametrize("family", [4, 6])
def test_what_stays_open_is_what_was_named(down: Lab, family: int) -> None:
    """APIs, failsafe ports, open ones; workload's internal ports for peers as ever."""
    address = down.node.ipv4 if family == 4 else down.node.ipv6
    closed = dict.fromkeys(DOORS, "timeout")
    for_all = {(Proto.TCP, API), (Proto.TCP, SSH), (Proto.TCP, OPEN), (Proto.UDP, OPEN)}
    assert _seen(down.stranger, address) == {**closed, **dict.fromkeys(for_all, "open")}
    for_peers = {*for_all, (Proto.TCP, INTERNAL)}
    assert _seen(down.peer, address) == {**closed, **dict.fromkeys(for_peers, "open")}


@pytest.mark.parametrize("family", [4, 6])
def test_the_host_gets_answers_to_what_it_asks(down: Lab, family: int) -> None:
    """TCP and UDP of its own, from ports that it binds and from any."""
    address = down.stranger.ipv4 if family == 4 else down.stranger.ipv6
    assert _seen(down.node, address) == dict.fromkeys(DOORS, "open")
    mine = down.node.ipv4 if family == 4 else down.node.ipv6
    assert down.node.connect(mine, OTHER) == "open"


@pytest.mark.parametrize("family", [4, 6])
def test_echo_goes_both_ways_and_a_closed_port_is_told(down: Lab, family: int) -> None:
    """ICMP has no ports: ping, and the error for a UDP port at which nobody listens."""
    node, stranger = down.node, down.stranger
    here, there = (node.ipv4, stranger.ipv4) if family == 4 else (node.ipv6, stranger.ipv6)
    assert pings(stranger, here)
    assert pings(node, there)
    assert probe(node, Proto.UDP, there, 12345) == "refused"


@pytest.mark.parametrize("family", [4, 6])
def test_a_neighbour_that_was_forgotten_is_found_again(down: Lab, family: int) -> None:
    """ARP is no IP; neighbour solicitation and advertisement are, in both directions."""
    there, here = (
        (down.stranger.ipv4, down.node.ipv4)
        if family == 4
        else (down.stranger.ipv6, down.node.ipv6)
    )
    for host in (down.node, down.stranger):
        host.run(["ip", "neigh", "flush", "all"])
    assert down.node.connect(there, ELSEWHERE, timeout=3) == "open"
    for host in (down.node, down.stranger):
        host.run(["ip", "neigh", "flush", "all"])
    assert down.stranger.connect(here, API, timeout=3) == "open"


def test_a_router_advertisement_arrives(down: Lab) -> None:
    """A node without its default route is cut off: RAs are heard in lockdown."""
    node = down.node
    node.run(["sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=2"])
    prefix = socket.inet_pton(socket.AF_INET6, "2001:db8:77::")
    option = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 1800, 0) + prefix
    advert = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + option

    def advertise() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            raw.sendto(advert, ("ff02::1", 0, 0, socket.if_nametoindex("eth0")))

    def learnt() -> bool:
        down.peer.call(advertise)
        return "2001:db8:77:" in node.run(["ip", "-6", "addr", "show", "dev", "eth0"]).stdout

    eventually(learnt, "the prefix of the advertisement is taken")


def test_dhcp_offers_arrive_though_nobody_was_asked_by_that_address(down: Lab) -> None:
    """An offer answers a broadcast: no flow that conntrack knows. Its ports let it in."""
    with ExitStack() as held:
        client = held.enter_context(down.node.open_socket(socket.AF_INET, socket.SOCK_DGRAM))
        client.bind(("0.0.0.0", 68))
        client.settimeout(SILENCE)
        for port, arrives in ((67, True), (1067, False)):
            server = held.enter_context(
                down.stranger.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
            )
            server.bind(("0.0.0.0", port))
            server.sendto(b"offer", (down.node.ipv4, 68))
            try:
                assert client.recv(64) == b"offer"
                assert arrives
            except TimeoutError:
                assert not arrives


@pytest.mark.parametrize("family", [4, 6])
def test_the_path_mtu_is_learnt(lab: Lab, backend: Nftables, family: int) -> None:
    """A hop with a small MTU says so by ICMP, and what the node serves gets through."""
    far = _behind_a_small_hop(lab)
    address = lab.node.ipv4 if family == 4 else lab.node.ipv6
    source = far.ipv4 if family == 4 else far.ipv6
    lab.node.listen("::", API)
    backend.apply(lab.node.path, locked(lab.node), None)
    with far.dial(address, API, timeout=5) as client:
        assert _echoed(client, 100_000) == 100_000
    assert "mtu 1300" in lab.node.run(["ip", "route", "get", source]).stdout


def _behind_a_small_hop(lab: Lab) -> Host:
    """A host behind the peer, on a link of 1300 bytes, that the node reaches through the peer."""
    far = lab.host("far", "192.88.99.9", "2001:db8:fa::9")
    far.run(["ip", "link", "del", "eth0"])
    small = ["ip", "link", "add", "small", "mtu", "1300", "type", "veth", "peer", "name", "small"]
    lab.peer.run([*small, "mtu", "1300", "netns", Path(far.path).name])
    for host in (lab.peer, far):
        host.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
        host.run(["ip", "link", "set", "small", "up"])
    for address in ("192.88.99.9/32", "2001:db8:fa::9/128"):
        nodad = ["nodad"] if ":" in address else []
        far.run(["ip", "addr", "add", address, "dev", "small", *nodad])
        lab.peer.run(["ip", "route", "add", address, "dev", "small"])
    for address in ("0.0.0.0/0", "::/0"):
        # Segments as large as a plain link takes: the hop, and not the far end, makes them small.
        far.run(["ip", "route", "add", address, "dev", "small", "advmss", "1440"])
    for address, gateway in (("192.88.99.9/32", PEER[0]), ("2001:db8:fa::9/128", PEER[1])):
        way = ["via", gateway, "dev", "eth0", "onlink"]
        lab.node.run(["ip", "route", "add", address, *way])
    for name in ("ipv4", "ipv6"):  # the link is answered for at either end
        kind = "proxy_arp" if name == "ipv4" else "proxy_ndp"
        lab.peer.run(["sysctl", "-qw", f"net.{name}.conf.small.{kind}=1"])
    lab.peer.run(["ip", "neigh", "add", "proxy", lab.node.ipv6, "dev", "small"])
    return far


def _echoed(client: socket.socket, size: int) -> int:
    """How much of so many bytes comes back."""
    client.settimeout(5)
    got = sent = 0
    try:
        while got < size:
            sent += client.send(bytes(min(4096, size - sent))) if sent < size else 0
            got += len(client.recv(65536))
    except TimeoutError:
        return got
    return got


def test_what_the_node_forwards_is_untouched(lab: Lab, backend: Nftables) -> None:
    """Containers and their published ports are behind the forward hook: lockdown is not there."""
    inner = lab.host("inner", "192.88.99.9", "2001:db8:fa::9")
    lab.node.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    make = ["ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth0"]
    lab.node.run([*make, "netns", Path(inner.path).name])
    inner.run(["ip", "link", "set", "eth0", "down"])
    for host, address in ((lab.node, "192.88.99.1/24"), (inner, "192.88.99.9/24")):
        host.run(["ip", "link", "set", "veth0", "up"])
        host.run(["ip", "addr", "replace", address, "dev", "veth0"])
    inner.run(["ip", "route", "replace", "default", "via", "192.88.99.1"])
    gateway = ["via", "192.0.2.1", "dev", "eth0", "onlink"]
    lab.stranger.run(["ip", "route", "add", "192.88.99.0/24", *gateway])
    inner.listen("0.0.0.0", OTHER)
    inner.listen_udp("0.0.0.0", OTHER)
    backend.apply(lab.node.path, locked(lab.node), None)
    assert probe(lab.stranger, Proto.TCP, "192.88.99.9", OTHER) == "open"
    assert probe(lab.stranger, Proto.UDP, "192.88.99.9", OTHER) == "open"
    lab.stranger.listen("0.0.0.0", OTHER)
    assert probe(inner, Proto.TCP, lab.stranger.ipv4, OTHER) == "open"


def test_nothing_is_tracked_without_lockdown(lab: Lab, backend: Nftables) -> None:
    """conntrack is for lockdown and for limited connections: a plain wall has none of it."""
    lab.node.listen("::", API)
    count = ["cat", "/proc/sys/net/netfilter/nf_conntrack_count"]
    backend.apply(
        lab.node.path, replace(locked(lab.node), lockdown=False, opened=frozenset()), None
    )
    with lab.stranger.dial(lab.node.ipv4, API):
        assert lab.node.run(count).stdout == "0\n"
    backend.apply(lab.node.path, locked(lab.node), None)
    with lab.stranger.dial(lab.node.ipv4, API):
        assert lab.node.run(count).stdout != "0\n"


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    """A node with a daemon, in lockdown from the first pass on."""
    found = Guarded(lab, tmp_path / "node")
    found.configure(CONFIG)
    found.start()
    yield found
    if found.process is not None and found.process.poll() is None:
        found.stop()


def test_ssh_and_what_runs_live_through_on_and_off(lab: Lab, tmp_path: Path) -> None:
    """Connections from before go on, the host's own too; new ones come to failsafe ports only."""
    for port in (SSH, OTHER):
        lab.node.listen("::", port)
    lab.stranger.listen("::", ELSEWHERE)
    found = Guarded(lab, tmp_path / "node")
    found.start()
    with ExitStack() as held:
        before = [dialled(held, lab.stranger, lab.node.ipv4, port) for port in (SSH, OTHER)]
        before.append(dialled(held, lab.node, lab.stranger.ipv4, ELSEWHERE))
        for config, other in ((CONFIG, "timeout"), (PEERS, "open"), (CONFIG, "timeout")):
            found.configure(config)
            found.ask("reload")
            assert [lives(one) for one in before] == [True] * 3
            assert lab.stranger.connect(lab.node.ipv4, OTHER) == other
            assert lab.stranger.connect(lab.node.ipv4, SSH) == "open"
    status = found.ask("status")
    assert status["orders"]["lockdown"] is True  # type: ignore[index]
    assert status["safe"] is True
    found.stop()


def _listeners(node: Guarded) -> dict[int, dict[str, object]]:
    answer = node.ask("status")["workloads"]
    return {one["port"]: one for each in answer for one in each["listeners"]}  # type: ignore[attr-defined]


def test_a_user_who_is_not_named_opens_no_api(node: Guarded) -> None:
    """Root's server is an API; the same one of another user is internal, and status says why."""
    lab = node.lab
    mine = node.server(API)
    mine.open("tcp", "0.0.0.0", API)
    eventually(lambda: lab.stranger.connect(lab.node.ipv4, API) == "open", "root's API is open")
    theirs = node.server(8001, user=65534)
    theirs.open("tcp", "0.0.0.0", 8001)
    eventually(lambda: 8001 in _listeners(node), "the other one is seen")
    node.settled()
    found = _listeners(node)[8001]
    assert (found["role"], found["audience"]) == ("unknown", ["peers"])
    assert "uid 65534 may not open one" in str(found["reason"])
    assert lab.stranger.connect(lab.node.ipv4, 8001) == "timeout"
    assert lab.peer.connect(lab.node.ipv4, 8001) == "open"
    node.configure(CONFIG + "api_users = ['root', '65534']\n")
    node.ask("reload")
    assert lab.stranger.connect(lab.node.ipv4, 8001) == "open"


def test_a_boot_keeps_lockdown(lab: Lab, tmp_path: Path) -> None:
    """The script for the next boot closes what the wall closed, before any daemon runs."""
    state = tmp_path / "state"
    for port in (SSH, OTHER, OPEN):
        lab.node.listen("::", port)
    found = Guarded(lab, tmp_path / "node", arguments=("--state-dir", str(state)))
    found.configure(CONFIG)
    found.start()
    eventually((state / "boot.nft").exists, "the script is written")
    found.stop()
    subprocess.run(lab.node.command(["nft", "flush", "ruleset"]), check=True)
    assert lab.stranger.connect(lab.node.ipv4, OTHER) == "open"
    lab.node.run(["nft", "-f", str(state / "boot.nft")])
    ports = (SSH, OTHER, OPEN)
    seen = ask_all(ports, lambda port: probe(lab.stranger, Proto.TCP, lab.node.ipv4, port))
    assert seen == {SSH: "open", OTHER: "timeout", OPEN: "open"}
