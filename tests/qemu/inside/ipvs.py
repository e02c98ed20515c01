"""IPVS (kube-proxy, keepalived) delivers a service's packets to a container's internal port."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.explaining import explain
from tests.support.guarded import RANK, Program, guarded
from tests.support.lab import Host, Lab

_NODE = """
ip link add cni0 type bridge
ip address add 10.244.0.1/24 dev cni0
ip link set cni0 up
ip link add v0 type veth peer name eth0 netns {box}
ip link set v0 master cni0 up
sysctl -qw net.ipv4.ip_forward=1
"""
_BOX = """
ip link set lo up
ip address add 10.244.0.7/24 dev eth0
ip link set eth0 up
ip route add default via 10.244.0.1
"""
_SERVICE = """
ipvsadm -A -t 192.0.2.1:30500 -s rr
ipvsadm -a -t 192.0.2.1:30500 -r 10.244.0.7:29500 -m
"""


def test_a_service_is_closed_as_the_port_behind_it(lab: Lab, tmp_path: Path) -> None:
    """The packet meets the container's wall with the client's own address."""
    box = Host("box", lab._namespace("box"), lab._hosts_file, lab._stack)
    lab.node.run(["sh", "-ec", _NODE.format(box=box.path)])
    box.run(["sh", "-ec", _BOX])
    lab.node.run(["sh", "-ec", _SERVICE])
    arguments = ("--only-namespace", box.path)
    with guarded(lab, tmp_path, arguments=arguments) as node:
        process = subprocess.Popen(
            box.command([sys.executable, "-c", RANK]),
            env=node.rank_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        program = Program(process)
        box._stack.callback(program.kill)
        program.open("tcp", "0.0.0.0", 29500)
        node.server(8000).open("tcp", "0.0.0.0", 8000)
        node.wait_for_rules(2)
        assert "open" == lab.peer.connect("192.0.2.1", 30500, 3)
        assert "timeout" == lab.stranger.connect("192.0.2.1", 30500, 3)
        assert "open" == lab.stranger.connect("192.0.2.1", 8000, 3)
        answer = explain(node, "203.0.113.9", "30500")
        assert "unknown" == answer.verdict
        assert "IPVS forwards it to 10.244.0.7:29500" in answer.answers[0].reason
