"""The addresses of this node that clients behind its NAT have."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from tests.support.guarded import Guarded
from tests.support.lab import Lab
from tests.support.reconciling import kept
from vllmwall.engine.node_addresses import bridge_addresses, node_addresses

BRIDGES = """
ip link add cni0 type bridge; ip addr add 10.244.0.1/24 dev cni0
ip link add v0 type veth peer name v1; ip link set v0 master cni0
ip link add br0 type bridge; ip addr add 10.99.0.1/24 dev br0
ip link add vx type vxlan id 5 dev v1 dstport 4789; ip link set vx master br0
"""


def test_only_a_bridge_of_containers_masquerades(lab: Lab, tmp_path: Path) -> None:
    """Behind one with a device that leads outward, as of an overlay network, are other hosts."""
    lab.node.run(["sh", "-ec", BRIDGES])
    with kept(Guarded(lab, tmp_path)) as keeper:
        keeper.full_pass()
        assert {ip_address("10.244.0.1"): "cni0"} == bridge_addresses(keeper)
        found = node_addresses(keeper)
    own = {ip_address(lab.node.ipv4), ip_address("10.244.0.1"), ip_address("10.99.0.1")}
    assert own <= found
    assert [] == [one for one in found if one.is_loopback]
