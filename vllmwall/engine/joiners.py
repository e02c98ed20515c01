"""Hosts that will join a workload later, while no peers are configured. For `status`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from ipaddress import ip_network
from typing import TYPE_CHECKING

from vllmwall.cidr import NetworkSet, merged
from vllmwall.decide.adopted import NARROW
from vllmwall.engine.node_addresses import node_addresses
from vllmwall.linux import netlink
from vllmwall.linux.links import subnets
from vllmwall.linux.netns import run_in
from vllmwall.model import Address, Network, Workload
from vllmwall.observe.addresses import own_addresses
from vllmwall.recognize.several_hosts import several_hosts

if TYPE_CHECKING:
    from vllmwall.engine.reconciler import Reconciler

_MOST_NETWORKS = 4


def blocked_joiners(reconciler: Reconciler) -> Iterator[str]:
    """A line for each workload on several hosts whose new members will be blocked: why, from where
    they probably come, and the command that lets them in."""
    if reconciler.peers.networks() or reconciler.down:
        return
    own = node_addresses(reconciler)
    processes = reconciler.observer.node().processes
    for workload in reconciler.recognition.workloads:
        found = several_hosts(workload, processes, own)
        hosts = [one.address for one in workload.adopted if one.role is None]
        if found is None and not hosts:
            continue
        reason = found.reason if found else "it has connections to other hosts"
        networks = _networks(reconciler, workload, [*hosts, *(found.heads if found else ())], own)
        yield (
            f"{workload.name} (pid {workload.id.root_pid}) runs on several hosts ({reason}), and "
            f"no peers are configured: hosts that join it are blocked. {_remedy(networks)}"
        )


def _remedy(networks: tuple[Network, ...]) -> str:
    if not networks:
        return "If you trust its hosts, add their network: vllmwall peers add CIDR --save"
    shown = " ".join(map(str, networks[:_MOST_NETWORKS]))
    return (
        f"They probably come from {shown.replace(' ', ', ')}. If you trust all hosts there: "
        f"vllmwall peers add {shown} --save"
    )


def _networks(
    reconciler: Reconciler, workload: Workload, hosts: list[Address], own: frozenset[Address]
) -> tuple[Network, ...]:
    """The subnets of these hosts. Never one that all clients behind this node's NAT share: in a
    container's namespace a network with an address of the node is such a one."""
    namespaces = reconciler.observer.namespaces
    spaces = {one.listener.namespace for one in workload.listeners}
    beside: set[Network] = set()
    for inode in spaces:
        with suppress(OSError, KeyError):
            beside |= run_in(namespaces.path(inode), _subnets)
    shared: tuple[Address, ...] = ()
    if spaces != {namespaces.own}:
        with suppress(OSError, KeyError):
            shared = own_addresses(namespaces.path(namespaces.own))
    found = []
    for host in hosts:
        around = [one for one in beside if one.version == host.version and host in one]
        wide = [one for one in around if one.prefixlen >= NARROW[one.version]]
        network = wide[0] if wide else ip_network(host)
        holds_ours = any(one in NetworkSet([network]) for one in shared)
        found.append(ip_network(host) if holds_ours else network)
    alone = [one for one in found if one.num_addresses > 1 or one.network_address not in own]
    return merged(alone)


def _subnets() -> set[Network]:
    with closing(netlink.opened(netlink.ROUTE)) as route:
        return set(subnets(route).values())
