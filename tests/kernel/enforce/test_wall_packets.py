"""Packets that are not plain: fragments, extension headers, replies, a flood of sources."""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from tests.support import packets
from tests.support.lab import Host, Lab
from tests.support.walls import SILENCE, entry, everywhere, probe, wall
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.model import Proto

PORT = 29500


def _big_round_trip(host: Host, address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with host.open_socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SILENCE)
        sock.sendto(b"x" * 4000, (address, PORT))
        try:
            return len(sock.recv(65536)) == 4000
        except TimeoutError:
            return False


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_fragments_of_a_peer_pass_and_of_a_stranger_do_not(
    lab: Lab, backend: Nftables, address: str
) -> None:
    """A datagram of three fragments is let in or kept out as a whole."""
    lab.node.listen_udp("::", PORT)
    assert _big_round_trip(lab.stranger, address)
    backend.apply(lab.node.path, wall(lab.node, everywhere(PORT, "peers")), None)
    assert _big_round_trip(lab.peer, address)
    assert not _big_round_trip(lab.stranger, address)


REFUSED_BY_THE_KERNEL = {
    "cut before the ports",
    "cut before the ports, last first",
    "cut inside a long option header",
}
REFUSED_FROM_ALL = {"hop-by-hop before the fragments, cut inside the chain"}


@pytest.mark.parametrize("trick", packets.tricks("::1", "::1", 1))
def test_no_trick_with_headers_carries_a_stranger_in(
    lab: Lab, backend: Nftables, trick: str
) -> None:
    """The port is found behind extension headers; where it hides in a later fragment, the
    kernel itself refuses the datagram (RFC 7112), from a peer too. Where the chain of headers
    is cut between two of them it does not, and the last rule of the wall does. A fragment header
    behind another header is refused from all."""
    backend.apply(lab.node.path, wall(lab.node, everywhere(PORT, "peers")), None)
    target = lab.node.ipv6
    with lab.node.open_socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.bind((target, PORT))
        server.settimeout(SILENCE)
        for host, is_let_in in ((lab.stranger, False), (lab.peer, True)):
            number, payloads = packets.tricks(host.ipv6, target, PORT)[trick]
            packets.send(host, host.ipv6, target, number, *payloads)
            expected = is_let_in and trick not in REFUSED_BY_THE_KERNEL | REFUSED_FROM_ALL
            assert _arrives(server) == expected


def _arrives(server: socket.socket) -> bool:
    try:
        return server.recv(64) == packets.PAYLOAD
    except TimeoutError:
        return False


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_replies_to_outbound_connections_never_meet_a_listener_rule(
    lab: Lab, backend: Nftables, kind: socket.SocketKind
) -> None:
    """The kernel hands out no port that a listener is bound to, so the workload's own
    connections to strangers work, up to the last free port."""
    bounds = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lab.node.call(lambda: bounds.write_text("20000 20007"))
    lab.stranger.listen("::", 443)
    lab.stranger.listen_udp("::", 443)
    walled = {20001, 20004, 20005}
    for port in walled:
        lab.node.listen("::", port)
        lab.node.listen_udp("::", port)
    entries = [each for port in walled for each in everywhere(port, "peers")]
    backend.apply(lab.node.path, wall(lab.node, entries), None)
    connections = _connect_until_ports_run_out(lab.node, kind, (lab.stranger.ipv4, 443))
    used = {each.getsockname()[1] for each in connections}
    assert used == set(range(20000, 20008)) - walled
    assert [_talks(each) for each in connections] == [True] * 5
    for each in connections:
        each.close()


def _connect_until_ports_run_out(
    host: Host, kind: socket.SocketKind, target: tuple[str, int]
) -> list[socket.socket]:
    made: list[socket.socket] = []
    while True:
        sock = host.open_socket(socket.AF_INET, kind)
        sock.settimeout(SILENCE)
        try:
            sock.connect(target)
        except OSError as error:
            sock.close()
            assert error.errno in (errno.EADDRNOTAVAIL, errno.EAGAIN)
            return made
        made.append(sock)


def _talks(connection: socket.socket) -> bool:
    connection.send(b"hello")
    return connection.recv(64) == b"hello"


def test_a_full_memory_still_drops(lab: Lab) -> None:
    """When the memory for sources is full, a new one is refused and counted all the same."""
    backend = Nftables("this test fills its sets")
    lab.node.listen("::", PORT)
    backend.apply(lab.node.path, wall(lab.node, everywhere(PORT, "peers")), None)
    sources = ", ".join(f"{IPv4Address(0x0A000000 + n)} . tcp . 1" for n in range(4096))
    lab.node.run(["nft", "-f", "-"], stdin=f"add element inet vllmwall refused4 {{ {sources} }}")
    assert probe(lab.stranger, Proto.TCP, lab.node.ipv4, PORT) == "timeout"
    assert probe(lab.peer, Proto.TCP, lab.node.ipv4, PORT) == "open"
    seen = backend.counters(lab.node.path)
    assert seen.packets >= 1
    assert IPv4Address(lab.stranger.ipv4) not in {refusal.source for refusal in seen.refusals}


def test_a_refused_port_says_nothing_and_others_answer(lab: Lab, backend: Nftables) -> None:
    """Only walled ports are silent: a closed port still refuses, over TCP and by ICMP, and
    the ICMP errors that others send us arrive."""
    backend.apply(lab.node.path, wall(lab.node, [entry(PORT, "peers")]), None)
    assert probe(lab.stranger, Proto.TCP, lab.node.ipv4, PORT) == "timeout"
    assert probe(lab.stranger, Proto.TCP, lab.node.ipv4, PORT + 1) == "refused"
    for host, other in ((lab.stranger, lab.node), (lab.node, lab.stranger)):
        assert probe(host, Proto.UDP, other.ipv4, PORT + 1) == "refused"
        assert probe(host, Proto.UDP, other.ipv6, PORT + 1) == "refused"


def test_the_hosts_own_addresses_reach_each_other(lab: Lab, backend: Nftables) -> None:
    """Traffic between two addresses of this host goes over lo, and needs no peer."""
    lab.node.add_address("192.0.2.77")
    lab.node.listen("192.0.2.77", PORT)
    backend.apply(lab.node.path, wall(lab.node, everywhere(PORT, "node")), None)
    assert lab.node.connect("192.0.2.77", PORT, source="192.0.2.1") == "open"


def test_multicast_to_a_walled_port_is_judged_too(lab: Lab, backend: Nftables) -> None:
    """A UDP wildcard listener that joined a group hears peers there and no strangers."""
    group = "239.255.7.7"
    with lab.node.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(SILENCE)
        server.bind(("0.0.0.0", PORT))
        joined = socket.inet_aton(group) + socket.inet_aton(lab.node.ipv4)
        server.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
        backend.apply(lab.node.path, wall(lab.node, everywhere(PORT, "peers")), None)
        heard = {}
        for host in (lab.stranger, lab.peer):
            with host.open_socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.bind((host.ipv4, 0))
                sender.sendto(packets.PAYLOAD, (group, PORT))
            heard[host.name] = _arrives(server)
    assert heard == {"stranger": False, "peer": True}
