"""The networks, reverse proxies and RDMA devices of the node."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from vllmwall.inspect.audit.types import Place
from vllmwall.linux.netns import run_in
from vllmwall.model import Address, Node, Proto

_PROXIES = frozenset(
    {"nginx", "openresty", "angie", "haproxy", "envoy", "caddy", "traefik", "apache2", "httpd"}
)
# Made by container runtimes and hypervisors: not networks that another node is in.
_INNER = re.compile(r"lo$|docker|br-|veth|cni|cali|flannel|virbr|podman|lxc|nodelocaldns|kube-")
_RDMA = re.compile(r"(?:.*/)?infiniband/(?:uverbs\d+|rdma_cm|ucm\d+)")


def addresses(pid: int) -> Mapping[str, tuple[Address, ...]]:
    """The addresses of each interface in a process's network namespace, link-local ones left
    out; empty where that may not be entered."""
    import psutil

    try:
        found = run_in(f"/proc/{pid}/ns/net", psutil.net_if_addrs)
    except OSError:
        return {}
    return {name: tuple(_plain(one.address for one in each)) for name, each in found.items()}


def _plain(texts: Iterable[str]) -> Iterable[Address]:
    for text in texts:
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:  # a hardware address
            continue
        if not address.is_link_local and not address.is_loopback:
            yield address


def networks(found: Mapping[str, tuple[Address, ...]]) -> tuple[str, ...]:
    """The interfaces by which other hosts are reached: ``eth0 (10.0.0.1)``."""
    return tuple(
        f"{name} ({each[0]})"
        for name, each in sorted(found.items())
        if each and not _INNER.match(name)
    )


def public_address(places: Iterable[Place], found: Mapping[str, tuple[Address, ...]]) -> str:
    """A global address at which one of these listeners answers; empty: none."""
    own = [address for each in found.values() for address in each if address.is_global]
    for place in places:
        address, is_wildcard = place.listener.plain_address, place.listener.is_wildcard
        if address is not None and address.is_global and not is_wildcard:
            return str(address)
        if address is not None and is_wildcard:
            for each in own:
                if address.version == 6 or each.version == 4:
                    return str(each)
    return ""


def proxies(node: Node, namespace: int) -> tuple[str, ...]:
    """Reverse proxies that other hosts reach in a network namespace."""
    found: dict[str, None] = {}
    for listener in node.listeners:
        if listener.namespace != namespace or listener.is_loopback:
            continue
        if listener.proto is not Proto.TCP:
            continue
        for pid in listener.pids:
            process = node.processes.get(pid)
            if process is not None and process.comm in _PROXIES:
                found[f"{process.comm} on port {listener.port}"] = None
    return tuple(found)


def rdma_devices(pids: Iterable[int]) -> tuple[str, ...]:
    """The RDMA devices that these processes hold open."""
    found = set()
    for pid in pids:
        folder = f"/proc/{pid}/fd"
        try:
            entries = os.listdir(folder)  # noqa: PTH208
        except OSError:
            continue
        for entry in entries:
            try:
                target = os.readlink(f"{folder}/{entry}")  # noqa: PTH115
            except OSError:
                continue
            if _RDMA.fullmatch(target):
                found.add(target)
    return tuple(sorted(found))
