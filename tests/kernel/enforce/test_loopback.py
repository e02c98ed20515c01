"""Packets to loopback addresses from other hosts: route_localnet and NAT make them arrive."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.explaining import explain
from tests.support.guarded import Guarded, guarded
from tests.support.lab import Host, Lab
from tests.support.localnet import route_loopback
from tests.support.proving import CLOSED, fates, proved
from tests.support.walls import entry, everywhere, probe, wall
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.model import Mode, Proto

PORT, OTHER = 29500, 7000
TO_LOOPBACK = """table ip other {
    chain prerouting {
        type nat hook prerouting priority -100
        tcp dport 81 dnat to 127.0.0.1:29500
        tcp dport 82 dnat to 127.0.0.1:7000
    }
}
"""


def over_loopback(host: Host, proto: Proto, port: int) -> str:
    """What such a host gets at the node's 127.0.0.1."""
    return probe(host, proto, "127.0.0.1", port, host.ipv4)


@pytest.mark.parametrize("proto", [Proto.TCP, Proto.UDP])
def test_a_workload_s_loopback_is_for_this_host(lab: Lab, backend: Nftables, proto: Proto) -> None:
    """Not for peers either, which the wall trusts at other ports; a port of no workload is open
    as it was."""
    route_loopback(lab, lab.stranger, lab.peer)
    serve = lab.node.listen if proto is Proto.TCP else lab.node.listen_udp
    serve("127.0.0.1", PORT)
    serve("127.0.0.1", OTHER)
    assert "open" == over_loopback(lab.stranger, proto, PORT)
    entries = [entry(PORT, "node", proto=proto, at="127.0.0.1"), *everywhere(29700, "peers")]
    backend.apply(lab.node.path, wall(lab.node, entries), None)
    for host in (lab.stranger, lab.peer):
        assert ("timeout", "open") == (
            over_loopback(host, proto, PORT),
            over_loopback(host, proto, OTHER),
        )
    assert "open" == probe(lab.node, proto, "127.0.0.1", PORT)


def test_a_wildcard_listener_is_reached_there_by_its_audience(lab: Lab, backend: Nftables) -> None:
    """Its rule holds for every address of the host."""
    route_loopback(lab, lab.stranger, lab.peer)
    lab.node.listen("0.0.0.0", PORT)
    backend.apply(lab.node.path, wall(lab.node, everywhere(PORT, "peers")), None)
    assert "timeout" == over_loopback(lab.stranger, Proto.TCP, PORT)
    assert "open" == over_loopback(lab.peer, Proto.TCP, PORT)


def test_nat_to_loopback_does_not_go_round_it(lab: Lab, backend: Nftables) -> None:
    """Another program's DNAT to a port of no workload goes on working."""
    route_loopback(lab)
    lab.node.listen("127.0.0.1", PORT)
    lab.node.listen("127.0.0.1", OTHER)
    lab.node.run(["nft", "-f", "-"], stdin=TO_LOOPBACK)
    assert "open" == lab.stranger.connect(lab.node.ipv4, 81)
    backend.apply(lab.node.path, wall(lab.node, [entry(PORT, "node", at="127.0.0.1")]), None)
    assert "timeout" == lab.stranger.connect(lab.node.ipv4, 81)
    assert "open" == lab.stranger.connect(lab.node.ipv4, 82)


def test_audit_mode_only_counts(lab: Lab, backend: Nftables) -> None:
    """As at every port."""
    route_loopback(lab, lab.stranger)
    lab.node.listen("127.0.0.1", PORT)
    entries = [entry(PORT, "node", at="127.0.0.1")]
    backend.apply(lab.node.path, wall(lab.node, entries, mode=Mode.AUDIT), None)
    assert "open" == over_loopback(lab.stranger, Proto.TCP, PORT)
    assert backend.counters(lab.node.path).packets > 0


def test_trust_in_peers_is_kept_beside_a_loopback_port(lab: Lab, backend: Nftables) -> None:
    """Nearly every job has such ports; its peers still pass by the shortest way."""
    entries = [entry(PORT, "node", at="127.0.0.1"), *everywhere(29700, "peers")]
    backend.apply(lab.node.path, wall(lab.node, entries), None)
    assert (
        lab.peer.ipv4 in lab.node.run(["nft", "list", "set", "inet", "vllmwall", "trusted4"]).stdout
    )


def test_the_daemon_closes_them_and_tells_so(lab: Lab, tmp_path: Path) -> None:
    """Without a guard, by the listener's own rule; status, explain and prove agree."""
    with guarded(lab, tmp_path) as node:
        job, api = node.rank(), node.server(8000)
        job.open("tcp", "127.0.0.1", PORT)
        job.open("udp", "127.0.0.1", PORT)
        job.open("tcp", "::1", PORT)
        api.open("tcp", "127.0.0.1", 8000)
        node.ask("reload")
        node.wait_for_rules(4)
        assert {("node",)} == {tuple(one["audience"]) for one in node.listeners()}  # type: ignore[arg-type]
        (answer,) = explain(node, "203.0.113.9", "8000").answers
        assert ("closed", True) == (answer.verdict, "bound to loopback" in answer.reason)
        route_loopback(lab, lab.stranger)
        assert {"timeout"} == {
            over_loopback(lab.stranger, Proto.TCP, PORT),
            over_loopback(lab.stranger, Proto.UDP, PORT),
            over_loopback(lab.stranger, Proto.TCP, 8000),
        }
        _told(node)
        node.ask("down")
        assert "open" == over_loopback(lab.stranger, Proto.TCP, 8000)
        (answer,) = explain(node, "203.0.113.9", "8000").answers
        assert ("open", "none") == (answer.verdict, answer.wall)


def _told(node: Guarded) -> None:
    (answer,) = explain(node, "203.0.113.9", "8000").answers
    assert ("closed", "drop") == (answer.verdict, answer.wall)
    assert "the source is not in its audience: this host" == answer.reason
    proof = proved(node)
    assert CLOSED == fates(proof, PORT) == fates(proof, 8000)
    assert {"by vllmwall"} == {one.by for one in proof.probes}
    assert [f"tcp [::1]:{PORT}"] == [one.listener for one in proof.skipped]
