"""The plan of `vllmwall prove`: targets, sources and expected results. Pure.

The policy for a listener's role decides what is expected, not the table: a missing rule must show.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Literal

from vllmwall.cidr import host_port
from vllmwall.decide.walls import FAILSAFE
from vllmwall.model import PUBLIC, Address, Listener, Network, Proto, Role

if TYPE_CHECKING:
    from vllmwall.api.status_answer import ListenerStatus, Status, WorkloadStatus

DOCUMENTATION = tuple(
    map(
        ip_network,
        ("198.51.100.0/24", "203.0.113.0/24", "192.0.2.0/24", "2001:db8::/32"),  # RFC 5737, 3849
    )
)
_HOSTS = (77, 78, 177, 178, 211, 212)  # of each range, the first that is unused
_CATCHES_ALL = 8  # a prefix as short as that is a default route in parts


class Way(str, Enum):
    """The kind of probe."""

    CONNECT = "connect"  # a full handshake, then a reset: for an API, which expects clients
    SYN = "syn"  # the first packet only: no program notices
    DATAGRAM = "datagram"  # with a wrong checksum: no program receives it


class Expected(str, Enum):
    """The result that a probe must have."""

    OPEN = "open"
    CLOSED = "closed"
    NOT_OURS = "not closed by vllmwall"  # a failsafe port: others may close it


@dataclass(frozen=True)
class Source:
    """The origin of a probe."""

    kind: Literal["stranger", "peer"]
    address: Address


@dataclass(frozen=True)
class Target:
    """One address and port of a listener. ``bound`` is where it listens, as `status` has it."""

    address: Address
    proto: Proto
    port: int
    bound: str
    role: str
    workload: str = ""
    root_pid: int = 0
    audience: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Probe:
    """One probe and its expected result."""

    source: Source
    target: Target
    way: Way
    expected: Expected


@dataclass(frozen=True)
class Skipped:
    """A listener that is not probed, and why. ``namespace`` is the name that people know."""

    listener: str
    role: str
    workload: str
    reason: str
    namespace: str = ""


@dataclass(frozen=True)
class NamespaceView:
    """What the plan needs from a network namespace: its addresses and listeners.

    ``localnet``: an interface takes packets to 127.0.0.0/8 from other hosts (route_localnet).
    """

    addresses: tuple[Address, ...]
    listeners: tuple[Listener, ...]
    localnet: bool = False

    def at(self, proto: Proto, port: int) -> list[Listener]:
        """The listeners at a port, on any address."""
        return self._by_port.get((proto, port), [])

    def is_listening(self, proto: Proto, bound: str, port: int) -> bool:
        """Whether that listener exists."""
        return any(one.address_text == bound for one in self.at(proto, port))

    @cached_property
    def _by_port(self) -> dict[tuple[Proto, int], list[Listener]]:
        found: dict[tuple[Proto, int], list[Listener]] = {}
        for one in self.listeners:
            found.setdefault((one.proto, one.port), []).append(one)
        return found


def targets_of(
    status: Status, namespace: int, view: NamespaceView
) -> tuple[list[Target], list[Skipped]]:
    """Every address at which a workload can be reached from outside, and listeners without one."""
    found: list[Target] = []
    skipped = []
    for workload in status.workloads:
        for one in workload.listeners:
            if one.namespace != namespace:
                continue
            reached = list(_targets(one, workload, view))
            found += reached
            if not reached:
                skipped.append(_skipped(one, workload))
    return found, skipped


def failsafe_targets(
    ports: Collection[tuple[Proto, int]], known: Collection[Target], view: NamespaceView
) -> list[Target]:
    """The failsafe TCP ports at which something listens, that are not targets already."""
    taken = {(one.address, one.port) for one in known}
    found = {
        (address, one.port): Target(
            address, one.proto, one.port, one.address_text, "failsafe", note=FAILSAFE
        )
        for one in view.listeners
        if one.proto is Proto.TCP and (one.proto, one.port) in ports
        for address in _destinations(one, view)
    }
    return [target for key, target in found.items() if key not in taken]


def probes_of(
    targets: Iterable[Target],
    sources: Iterable[Source],
    networks: Mapping[str, Collection[Network]],
) -> list[Probe]:
    """Each source at each target of its family; the strictest of shared ones counts."""
    found: dict[object, Probe] = {}
    sources = list(sources)
    for target in targets:
        for source in sources:
            if source.address.version != target.address.version:
                continue
            key = (source, target.address, target.proto, target.port)
            one = Probe(source, target, _way(target), _expected(source, target, networks))
            before = found.setdefault(key, one)
            if before.expected is Expected.OPEN and one.expected is Expected.CLOSED:
                found[key] = one
    return list(found.values())


def controls_of(probes: Iterable[Probe], view: NamespaceView) -> list[Probe]:
    """A probe of a port without listener for each pair of addresses: an answer proves the path.

    Without it a broken path would look like a perfect wall.
    """
    used = {one.port for one in view.listeners if one.proto is Proto.TCP}
    free = next(port for port in range(1, 65536) if port not in used)
    pairs = {(one.source, one.target.address) for one in probes}
    return [
        Probe(source, Target(address, Proto.TCP, free, "", "control"), Way.SYN, Expected.CLOSED)
        for source, address in sorted(pairs, key=repr)
    ]


def free_address(version: int, taken: Iterable[Network]) -> Address | None:
    """A documentation address outside these networks; None: there is none.

    Default routes do not count.
    """
    narrow = [one for one in taken if one.version == version and one.prefixlen >= _CATCHES_ALL]
    for network in DOCUMENTATION:
        if network.version != version:
            continue
        for host in _HOSTS:
            address = network.network_address + host
            if not any(address in one for one in narrow):
                return address
    return None


def _targets(
    one: ListenerStatus, workload: WorkloadStatus, view: NamespaceView
) -> Iterator[Target]:
    proto = Proto(one.proto)
    if proto is Proto.UNIX:
        return
    live = [each for each in view.at(proto, one.port) if each.address_text == one.addr]
    listener = live[0] if live else _listener(one)
    for address in _destinations(listener, view):
        yield Target(
            address=address,
            proto=proto,
            port=one.port,
            bound=one.addr,
            role=one.role,
            workload=workload.name,
            root_pid=workload.root_pid,
            audience=one.audience,
            note=one.reason,
        )


def _listener(one: ListenerStatus) -> Listener:
    address = ip_address(one.addr.partition("%")[0])
    return Listener(one.namespace, Proto(one.proto), one.port, address)


def _destinations(listener: Listener, view: NamespaceView) -> list[Address]:
    """Where packets reach it: one address per family, and never that of another listener."""
    others = view.at(listener.proto, listener.port)
    exact = {each.plain_address for each in others if not each.is_wildcard}
    found: list[Address] = []
    for to in listener.bound_to:
        if to.address is not None and to.address.is_loopback:
            found += [to.address] if view.localnet and to.family == 4 else []
        elif to.address is not None:
            found += [each for each in view.addresses if each == to.address][:1]
        elif to.family == 6 or not _has_own_ipv4(listener, others):
            of_family = (each for each in view.addresses if each.version == to.family)
            found += [each for each in of_family if each not in exact][:1]
    return found


def _has_own_ipv4(listener: Listener, others: Collection[Listener]) -> bool:
    """Whether the kernel delivers IPv4 to another listener, which is probed too."""
    is_dual = len(listener.bound_to) > 1
    return is_dual and any(each.address_text == "0.0.0.0" for each in others)


def _skipped(one: ListenerStatus, workload: WorkloadStatus) -> Skipped:
    where = f"{one.proto} {host_port(one.addr, one.port)}"
    if one.proto == Proto.UNIX.value:
        where = f"unix {one.path}"
    reason = one.reason or _unreached(one)
    return Skipped(where, one.role, workload.name, reason)


def _unreached(one: ListenerStatus) -> str:
    if one.proto != Proto.UNIX.value and _listener(one).is_loopback:
        return "loopback: the kernel takes no packet of another host there"
    return "bound to no address of its network namespace that can be probed"


def _way(target: Target) -> Way:
    if target.proto is Proto.UDP:
        return Way.DATAGRAM
    return Way.CONNECT if target.role == Role.API.value else Way.SYN


def _expected(
    source: Source, target: Target, networks: Mapping[str, Collection[Network]]
) -> Expected:
    if target.note == FAILSAFE:
        return Expected.NOT_OURS
    if PUBLIC in target.audience:
        return Expected.OPEN
    allowed = (network for name in target.audience for network in networks.get(name, ()))
    inside = any(source.address in network for network in allowed)
    return Expected.OPEN if inside else Expected.CLOSED
