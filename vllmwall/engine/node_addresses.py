"""The addresses of this node, which are not those of another host.

Clients behind this node's NAT (kube-proxy, docker-proxy) come to a container with one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from vllmwall.linux.netns import run_in
from vllmwall.observe.addresses import bridge_addresses_here, own_addresses

if TYPE_CHECKING:
    from vllmwall.engine.reconciler import Reconciler
    from vllmwall.model import Address


def node_addresses(reconciler: Reconciler) -> frozenset[Address]:
    """Those of the node's own namespaces, without loopback, as far as they can be read."""
    return frozenset(one for one in _all(reconciler) if not one.is_loopback)


def bridge_addresses(reconciler: Reconciler) -> dict[Address, str]:
    """Those of bridges without a real device, each with the name of the bridge: containers see
    clients that NAT masqueraded by one of them."""
    namespaces = reconciler.observer.namespaces
    found: dict[Address, str] = {}
    for inode in {namespaces.own, *reconciler.home}:
        with suppress(OSError, KeyError):
            found |= run_in(namespaces.path(inode), bridge_addresses_here)
    return found


def _all(reconciler: Reconciler) -> Iterator[Address]:
    namespaces = reconciler.observer.namespaces
    for inode in {namespaces.own, *reconciler.home}:
        with suppress(OSError, KeyError):
            yield from own_addresses(namespaces.path(inode))
