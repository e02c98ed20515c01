"""A VRF: the node's own packets through it reach its own job, and a stranger's do not."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.guarded import RANK, Guarded, guarded
from tests.support.lab import NODE, Lab

_VRF = """
ip link add blue type vrf table 10
ip link set blue up
ip link set eth0 master blue
ip address replace 192.0.2.1/32 dev eth0
ip address replace 2001:db8::1/128 dev eth0 nodad
ip route replace default dev eth0 scope link table 10
ip -6 route replace default dev eth0 table 10
sysctl -qw net.ipv4.tcp_l3mdev_accept=1 net.ipv4.udp_l3mdev_accept=1
"""


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    """The lab's node with its cable in a VRF, under a daemon."""
    lab.node.run(["sh", "-ec", _VRF])
    with guarded(lab, tmp_path) as found:
        yield found


def own(lab: Lab, address: str, port: int) -> str:
    """What a process of the node's own gets that dials the node within the VRF."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with lab.node.open_socket(family, socket.SOCK_STREAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"blue\0")
        made.settimeout(2)
        with suppress(TimeoutError):
            made.connect((address, port))
            return "open"
    return "timeout"


def reached(lab: Lab, address: str, port: int) -> tuple[str, str, str]:
    """What the node itself gets there, a peer, and a stranger."""
    return (
        own(lab, address, port),
        lab.peer.connect(address, port, 2),
        lab.stranger.connect(address, port, 2),
    )


def test_the_node_reaches_its_own_job(lab: Lab, node: Guarded) -> None:
    """So does a peer, and a stranger does not, whether the job listens in every VRF or in one. Over
    IPv6 own packets look like those of other hosts: status says so, with a remedy that works."""
    node.rank().open("tcp", "::", 29500)
    within = ["ip", "vrf", "exec", "blue", sys.executable, "-c", RANK]
    node._program(within, node.rank_environment()).open("tcp", "::", 29501)
    node.server(8000).open("tcp", "::", 8000)
    node.wait_for_rules(3)
    for port in (29500, 29501):
        assert ("open", "open", "timeout") == reached(lab, "192.0.2.1", port)
        assert ("timeout", "open", "timeout") == reached(lab, "2001:db8::1", port)
    for address in NODE:
        assert "open" == lab.stranger.connect(address, 8000, 2)
    (named,) = node.ask("status")["reservations"]  # type: ignore[misc]
    assert "own-packets-blocked" == named["kind"]
    assert 0 == node.command("peers", "add", "2001:db8::1").returncode
    for port in (29500, 29501):
        assert ("open", "open", "timeout") == reached(lab, "2001:db8::1", port)
    assert [True, []] == [node.ask("status")[one] for one in ("safe", "reservations")]
