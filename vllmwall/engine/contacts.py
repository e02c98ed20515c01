"""The established connections of workloads, as `vllmwall.decide.adopted` takes them. Reads only.

A connection counts once a process has accepted it: a handshake proves nothing about its source.
Bounded: of a namespace that has more than `MOST`, the others are not looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from vllmwall.decide.adopted import Contact
from vllmwall.engine.node_addresses import node_addresses
from vllmwall.linux import netlink
from vllmwall.linux.connections import established, is_here
from vllmwall.linux.links import subnets
from vllmwall.linux.netns import run_in
from vllmwall.model import Address, Proto, Workload
from vllmwall.observe.addresses import gateways

if TYPE_CHECKING:
    from vllmwall.engine.reconciler import Reconciler

MOST = 16384


@dataclass(frozen=True)
class Contacts:
    """Connections from other hosts, and what could not be read, in words."""

    found: tuple[Contact, ...] = ()
    problems: tuple[str, ...] = ()


def read_contacts(reconciler: Reconciler, workloads: Iterable[Workload]) -> Contacts:
    """The connections to the TCP listeners of these workloads that other hosts reach."""
    namespaces = reconciler.observer.namespaces
    ports: dict[int, set[int]] = {}
    for workload in workloads:
        for one in workload.listeners:
            if one.listener.proto is Proto.TCP and not one.listener.is_loopback:
                ports.setdefault(one.listener.namespace, set()).add(one.listener.port)
    own = node_addresses(reconciler)
    found: list[Contact] = []
    problems: list[str] = []
    for inode, those in ports.items():
        read = partial(_read, inode, those, own, is_behind_us=inode != namespaces.own)
        try:
            met, complete = run_in(namespaces.path(inode), read)
        except (OSError, KeyError, ValueError) as error:
            problems.append(f"{namespaces.name(inode)}: connections cannot be read: {error}")
            continue
        found += met
        if not complete:
            problems.append(f"{namespaces.name(inode)}: only {MOST} connections were looked at")
    return Contacts(tuple(found), tuple(problems))


def _read(
    namespace: int, ports: Collection[int], own: frozenset[Address], *, is_behind_us: bool
) -> tuple[list[Contact], bool]:
    """In the network namespace of the calling thread; whether these are all. Raises OSError."""
    with (
        closing(netlink.opened(netlink.SOCK_DIAG)) as diag,
        closing(netlink.opened(netlink.ROUTE)) as route,
    ):
        every = list(islice(established(diag, ports), MOST + 1))
        accepted = [one.connection for one in every if one.state == "established" and one.inode]
        ends = {(one.local, one.local_port, one.remote) for one in accepted}
        local = {one for one in {remote for _, _, remote in ends} if is_here(route, one)}
        beside = subnets(route)
    ours = own | (gateways() if is_behind_us else frozenset())
    found = [
        Contact(namespace, at, port, remote, beside.get(at), remote in ours)
        for at, port, remote in ends
        if remote not in local
    ]
    return found, len(every) <= MOST
