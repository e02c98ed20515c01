"""Packets whose port NAT has changed are judged by the first one, too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.explaining import explain
from tests.support.guarded import guarded
from tests.support.lab import Host, Lab
from tests.support.mesh import PORT, sidecar, talks
from tests.support.waiting import eventually
from tests.support.walls import entry, everywhere, probe, wall
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.model import Mode, Proto, Wall

CHANGES = """table inet nat {
    chain prerouting {
        type nat hook prerouting priority -100
        meta l4proto { tcp, udp } th dport 29500 redirect to :7000
        meta l4proto { tcp, udp } th dport 80 redirect to :8000
        meta l4proto { tcp, udp } th dport 81 redirect to :29600
    }
}
"""
SERVICE = """table ip nat {
    chain output {
        type nat hook output priority -100
        ip daddr 10.96.0.10 tcp dport 29500 dnat to 203.0.113.9:443
    }
    chain prerouting { type nat hook prerouting priority -100; }
}
"""
ADDRESSES = ("192.0.2.1", "2001:db8::1")


def judged(host: Host, *, mode: Mode = Mode.ENFORCE) -> Wall:
    """Two internal ports and a public one, beside NAT."""
    entries = [*everywhere(29500, "peers"), *everywhere(29600, "node"), *everywhere(8000, "public")]
    return replace(wall(host, entries, mode=mode), redirected=True)


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_sidecar_is_no_way_round_the_wall(lab: Lab, backend: Nftables, address: str) -> None:
    """It takes every port of the pod: peers reach the internal one, all reach the API."""
    for port in (8000, 29500):
        lab.node.listen("::", port)
    sidecar(lab.node)
    assert "answer" == talks(lab.stranger, address, 29500)
    backend.apply(lab.node.path, judged(lab.node), None)
    assert "TimeoutError" == talks(lab.stranger, address, 29500)
    assert "answer" == talks(lab.stranger, address, 8000)
    for port in (8000, 29500):
        assert "answer" == talks(lab.peer, address, port)


@pytest.mark.parametrize("proto", [Proto.TCP, Proto.UDP])
@pytest.mark.parametrize("address", ADDRESSES)
def test_both_ports_of_a_redirected_packet_must_let_it_in(
    lab: Lab, backend: Nftables, proto: Proto, address: str
) -> None:
    """29500 leads to a port of no workload, 80 to the API, 81 to a port for this host alone."""
    for port in (7000, 8000, 29600):
        (lab.node.listen if proto is Proto.TCP else lab.node.listen_udp)("::", port)
    lab.node.run(["nft", "-f", "-"], stdin=CHANGES)
    backend.apply(lab.node.path, judged(lab.node), None)
    got = {
        host.name: [probe(host, proto, address, port) for port in (29500, 80, 81, 7000)]
        for host in (lab.stranger, lab.peer)
    }
    assert {
        "stranger": ["timeout", "open", "timeout", "open"],
        "peer": ["open", "open", "timeout", "open"],
    } == got


def test_answers_to_this_host_s_own_connections_pass(lab: Lab, backend: Nftables) -> None:
    """A Service has the number of a port that is walled here: its answers had that port first."""
    lab.stranger.listen("0.0.0.0", 443)
    lab.node.listen("::", 29500)
    lab.node.run(["nft", "-f", "-"], stdin=SERVICE)
    backend.apply(lab.node.path, judged(lab.node), None)
    assert "answer" == talks(lab.node, "10.96.0.10", 29500)


def test_audit_mode_only_counts_what_was_redirected(lab: Lab, backend: Nftables) -> None:
    """As elsewhere."""
    lab.node.listen("::", 29500)
    sidecar(lab.node)
    backend.apply(lab.node.path, judged(lab.node, mode=Mode.AUDIT), None)
    assert "answer" == talks(lab.stranger, lab.node.ipv4, 29500)
    assert backend.counters(lab.node.path).packets > 0


def test_without_nat_nothing_is_tracked(lab: Lab, backend: Nftables) -> None:
    """A rule with ct would make the kernel track every connection of the node."""
    lab.node.listen("::", 29500)
    backend.apply(lab.node.path, wall(lab.node, [entry(29500, "peers")]), None)
    assert "open" == lab.peer.connect(lab.node.ipv4, 29500)
    assert "0" == lab.node.run(["sysctl", "-n", "net.netfilter.nf_conntrack_count"]).stdout.strip()
    backend.apply(lab.node.path, judged(lab.node), None)
    assert "open" == lab.peer.connect(lab.node.ipv4, 29500)
    assert "0" != lab.node.run(["sysctl", "-n", "net.netfilter.nf_conntrack_count"]).stdout.strip()


@pytest.mark.parametrize("tool", ["nft", "iptables", "iptables-legacy"])
def test_the_daemon_follows_when_nat_comes(lab: Lab, tmp_path: Path, tool: str) -> None:
    """A mesh's init container may come after the wall; of iptables-legacy only a pass learns."""
    with guarded(lab, tmp_path) as node:
        node.rank().open("tcp", "::", 29500)
        node.server(8000).open("tcp", "::", 8000)
        node.settled()
        assert "timeout" == lab.stranger.connect(lab.node.ipv4, 29500)
        sidecar(lab.node)
        if tool != "nft":
            lab.node.run(["nft", "delete", "table", "inet", "mesh"])
            redirect = f"-t nat -A PREROUTING -p tcp -j REDIRECT --to-ports {PORT}".split()
            lab.node.run([tool, "-w", *redirect])
        if tool == "iptables-legacy":
            node.ask("reload")
        asked = lab.node.ipv4, 29500
        eventually(lambda: lab.stranger.connect(*asked) == "timeout", "it is closed", node.log)
        assert "open" == lab.peer.connect(*asked)
        assert "open" == lab.stranger.connect(lab.node.ipv4, 8000)
        assert "closed" == explain(node, "203.0.113.9", "29500").verdict  # by its first port
        for source, port in (("203.0.113.9", "80"), ("192.0.2.2", "29500")):  # by the next one, too
            assert "unknown" == explain(node, source, port).verdict
        assert node.ask("status")["safe"] is True
