"""A container behind an ipvlan device: whose wall its packets meet depends on the mode."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.guarded import guarded
from tests.support.lab import Host, Lab

ADDRESSES = ("192.0.2.50", "2001:db8::50")
_SLAVE = """
ip link add link eth0 name slave type ipvlan mode {mode}
ip link set slave netns {box}
sysctl -qw net.ipv4.conf.eth0.proxy_arp=1 net.ipv6.conf.eth0.proxy_ndp=1
ip -6 neigh add proxy 2001:db8::50 dev eth0
"""
_INSIDE = """
sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
ip link set lo up
ip link set slave name eth0
ip link set eth0 up
ip address add 192.0.2.50/32 dev eth0
ip -6 address add 2001:db8::50/128 dev eth0 nodad
ip route add default dev eth0
ip -6 route add default dev eth0
"""


def container(lab: Lab, mode: str) -> Host:
    """A host whose only device is an ipvlan of the node's cable."""
    box = Host("box", lab._namespace("box"), lab._hosts_file, lab._stack)
    lab.node.run(["sh", "-ec", _SLAVE.format(mode=mode, box=box.path)])
    box.run(["sh", "-ec", _INSIDE])
    box.addresses += ADDRESSES
    mac = json.loads(lab.node.run(["ip", "-j", "link", "show", "eth0"]).stdout)[0]["address"]
    for host in (lab.peer, lab.stranger):
        for address in ADDRESSES:
            host.run(["ip", "neigh", "replace", address, "lladdr", mac, "dev", "eth0"])
    return box


@pytest.mark.parametrize("mode", ["l3", "l3s"])
def test_who_reaches_the_container(lab: Lab, tmp_path: Path, mode: str) -> None:
    """In l3 (and l2) the wall stops strangers. In l3s it cannot, and status says so."""
    box = container(lab, mode)
    lab.node = box
    with guarded(lab, tmp_path) as node:
        node.rank().open("tcp", "::", 29500)
        node.settled()
        got = [
            (lab.peer.connect(one, 29500, 2), lab.stranger.connect(one, 29500, 2))
            for one in ADDRESSES
        ]
        status = node.ask("status")
        named = [one["kind"] for one in status["reservations"]]  # type: ignore[attr-defined]
        if mode == "l3s":
            assert [("open", "open")] * 2 == got
            assert (["filtered-elsewhere"], None) == (named, status["safe"])
        else:
            assert [("open", "timeout")] * 2 == got
            assert ([], True) == (named, status["safe"])
