"""The question of `vllmwall explain`, and the packets that it is about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Literal

from vllmwall.api.errors import ControlError
from vllmwall.api.explain.answer import Hook
from vllmwall.cidr import without_zone
from vllmwall.enforce.evaluator import Packet
from vllmwall.engine.reconciler import Reconciler
from vllmwall.linux.netns import run_in
from vllmwall.model import Address, LabelledListener, Listener, Network, Proto, Workload
from vllmwall.observe.addresses import own_addresses
from vllmwall.observe.namespaces import inode_of_name
from vllmwall.observe.other_firewalls import PublishedPort
from vllmwall.observe.packet_paths import routes_loopback

PEER, STRANGER = "peer", "stranger"
_STRANGERS = ("203.0.113.9", "198.51.100.9", "192.0.2.9", "2001:db8:bad::9", "3fff::9")
_NODE = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}  # where it has no address
_HOSTS_LOOKED_AT = 16


@dataclass(frozen=True)
class Target:
    """A port of a namespace, with the listener there, if there is one."""

    namespace: int
    proto: Proto
    port: int
    listener: Listener | None = None


@dataclass(frozen=True)
class Probe:
    """A packet to a target. ``namespace`` is the name of that of the target. ``localnet``: an
    interface there takes packets to 127.0.0.0/8 from other hosts (route_localnet)."""

    namespace: str
    target: Target
    packet: Packet
    localnet: bool = False

    @property
    def exists(self) -> bool:
        """Whether the target takes packets of the source's family at all."""
        return self.packet.source.version == self.packet.destination.version

    def is_taken_by(self, port: PublishedPort) -> bool:
        """Whether NAT forwards it; a packet over lo is not forwarded."""
        source = self.packet.source
        here = (self.target.proto.value, self.target.port) == (port.proto, port.port)
        return here and not source.is_loopback and source.version == _end(port)[0].version

    def is_behind(self, port: PublishedPort) -> bool:
        """Whether NAT forwards packets of a published port to its address and port."""
        return (self.packet.destination, self.target.port) == _end(port)


@dataclass(frozen=True)
class Firewalls:
    """Other programs' firewalls in one namespace, as the process that asks has read them.

    ``problems`` say why something may be missing.
    """

    namespace: str
    hooks: tuple[Hook, ...] = ()
    published: tuple[PublishedPort, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """The request. ``sources`` are addresses, ``peer`` or ``stranger``; ``target`` is a port or
    the name of a workload; ``namespace`` and ``proto`` empty: any. ``skip``: the number of answers
    that are known already. ``firewalls`` None: they were not read."""

    sources: tuple[str, ...]
    target: str
    namespace: str = ""
    proto: Literal["", "tcp", "udp"] = ""
    to: Address | None = None
    skip: int = 0
    firewalls: tuple[Firewalls, ...] | None = None


def probes(reconciler: Reconciler, asked: Question) -> list[Probe]:
    """The packets that the question is about. Raises ControlError for a name that names nothing.

    A listener that takes no packet of the source's family has one all the same, since that is the
    answer; unless another listener at that port takes it.
    """
    targets = _targets(reconciler, asked)
    places = {inode: _place(reconciler, inode) for inode in {one.namespace for one in targets}}
    every = [
        probe for one in targets for probe in _of(reconciler, asked, one, places[one.namespace])
    ]
    met = {_key(probe) for probe in every if probe.exists}
    return [probe for probe in every if probe.exists or _key(probe) not in met]


def labelled(reconciler: Reconciler) -> Iterator[tuple[Workload, LabelledListener]]:
    """Every recognized listener, with its workload."""
    for workload in reconciler.recognition.workloads:
        for one in workload.listeners:
            yield workload, one


def _key(probe: Probe) -> tuple[str, Proto, int, Address]:
    return probe.namespace, probe.target.proto, probe.target.port, probe.packet.source


def _of(reconciler: Reconciler, asked: Question, target: Target, place: _Place) -> list[Probe]:
    own = place.own
    every = [
        Probe(
            place.name,
            target,
            Packet(
                source,
                asked.to or _destination(target.listener, source, own),
                target.proto.value,
                target.port,
                0,
                frozenset({"syn"} if target.proto is Proto.TCP else ()),
                interface="lo" if source in own or source.is_loopback else "",
            ),
            place.localnet,
        )
        for source in _sources(reconciler, asked, own)
    ]
    return [probe for probe in every if probe.exists] or every[:1]


def _targets(reconciler: Reconciler, asked: Question) -> list[Target]:
    wanted = _namespace(reconciler, asked.namespace) if asked.namespace else None
    if asked.target.isdigit():
        return _at_port(reconciler, asked, wanted)
    found = [
        Target(one.listener.namespace, one.listener.proto, one.listener.port, one.listener)
        for workload, one in labelled(reconciler)
        if asked.target == workload.name
        and one.listener.proto is not Proto.UNIX
        and asked.proto in ("", one.listener.proto.value)
        and wanted in (None, one.listener.namespace)
    ]
    if not found:
        names = sorted({workload.name for workload, _ in labelled(reconciler)})
        known = f"Workloads that listen: {', '.join(names)}." if names else "No workload listens."
        hint = f"{known} Use one of their names, or a port number."
        raise ControlError("failed", f"no listener matches {asked.target!r}", hint)
    return sorted(found, key=lambda target: (target.namespace, target.port, target.proto.value))


def _at_port(reconciler: Reconciler, asked: Question, wanted: int | None) -> list[Target]:
    port = int(asked.target)
    if not 1 <= port <= 65535:
        raise ControlError("failed", f"{port} is not a port", "Ports are 1 to 65535.")
    everywhere = reconciler.observer.namespaces.inodes if wanted is None else (wanted,)
    found = [
        one
        for inode in everywhere
        for one in reconciler.observer.namespaces.listeners(inode, port)
        if asked.proto in ("", one.proto.value) and (asked.to is None or one.reached_by(asked.to))
    ]
    if found:
        return [Target(one.namespace, one.proto, port, _known(reconciler, one)) for one in found]
    own = reconciler.observer.namespaces.own
    home = wanted or (own if own in reconciler.home else min(reconciler.home))
    return [Target(home, Proto(asked.proto or "tcp"), port)]


def _known(reconciler: Reconciler, found: Listener) -> Listener:
    """The same listener with its owners, which sock_diag does not know."""
    for one in reconciler.observer.node().listeners:
        if (one.namespace, one.inode) == (found.namespace, found.inode):
            return one
    return found


def _sources(reconciler: Reconciler, asked: Question, own: Sequence[Address]) -> Iterator[Address]:
    for source in asked.sources:
        if source == PEER:
            yield from _peers(reconciler.peers.networks(), own)
        elif source == STRANGER:
            yield from _strangers(reconciler)
        else:
            yield _address(source)


def _address(text: str) -> Address:
    try:
        return without_zone(ip_address(text))
    except ValueError as error:
        hint = "Use an address, `peer` or `stranger`."
        raise ControlError("bad-request", f"sources: {error}", hint) from error


@dataclass(frozen=True)
class _Place:
    """A namespace: its name, its own addresses, and its route_localnet."""

    name: str
    own: tuple[Address, ...] = ()
    localnet: bool = False


def _place(reconciler: Reconciler, namespace: int) -> _Place:
    """What can be read of a namespace."""
    namespaces = reconciler.observer.namespaces
    name = namespaces.name(namespace)
    with suppress(OSError, KeyError):
        path = namespaces.path(namespace)
        return _Place(name, own_addresses(path), run_in(path, routes_loopback))
    return _Place(name)


def _destination(listener: Listener | None, source: Address, own: Sequence[Address]) -> Address:
    """The address that the listener is bound to, or one of the namespace's own that it takes."""
    bound = listener.plain_address if listener else None
    if bound is not None and not bound.is_unspecified:
        return without_zone(bound)
    if source.is_loopback:
        return source
    family = [one for one in own if one.version == source.version]
    outside = [one for one in family if not one.is_loopback and not one.is_link_local]
    found = next(iter(outside or family), _NODE[source.version])
    return found if bound is None or listener is None or listener.reached_by(found) else bound


def _namespace(reconciler: Reconciler, name: str) -> int:
    namespaces = reconciler.observer.namespaces
    for inode in namespaces.inodes:
        if name in (namespaces.name(inode), str(inode)):
            return inode
    with suppress(OSError):
        inode = inode_of_name(name)
        if inode in namespaces.inodes:
            return inode
    known = ", ".join(sorted(namespaces.name(inode) for inode in namespaces.inodes))
    message = f"no network namespace {name!r} has a process in it"
    raise ControlError("failed", message, f"Use one of these: {known}.")


def _peers(networks: Iterable[Network], own: Sequence[Address]) -> list[Address]:
    """One address of each family that is not this host's own."""
    found: dict[int, Address] = {}
    for network in networks:
        for one in _some_hosts(network):
            if one not in own:
                found.setdefault(network.version, one)
    if not found:
        hint = "Add some with `vllmwall peers add`, or in peers.cidrs."
        raise ControlError("failed", "no peers are known", hint)
    return [found[version] for version in sorted(found)]


def _some_hosts(network: Network) -> Iterator[Address]:
    first, last = int(network.network_address), int(network.broadcast_address)
    start = first + (1 if last - first > 1 else 0)
    for value in range(start, min(last, start + _HOSTS_LOOKED_AT) + 1):
        yield type(network.network_address)(value)


def _strangers(reconciler: Reconciler) -> list[Address]:
    """Of the documentation addresses, one of each family that no peer, group or ban contains."""
    groups = [one for networks in reconciler.policy.groups.values() for one in networks]
    known = [*reconciler.peers.networks(), *groups, *reconciler.bans.networks()]
    found: dict[int, Address] = {}
    for address in map(ip_address, _STRANGERS):
        if not any(address.version == one.version and address in one for one in known):
            found.setdefault(address.version, address)
    if not found:
        message = "peers, groups and bans contain every documentation address"
        raise ControlError("failed", message, "Use the address of a stranger.")
    return [found[version] for version in sorted(found)]


@lru_cache(maxsize=64)
def _end(port: PublishedPort) -> tuple[Address, int]:
    address, _, number = port.to.rpartition(":")
    return ip_address(address.strip("[]")), int(number)
