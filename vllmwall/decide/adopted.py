"""Connections that a workload had before its first wall, which are not cut. Pure.

Hosts of private networks that were connected to internal listeners become peers of that workload
and of no other. The clients of a gRPC, metrics or other port that is no part of a job's own traffic
reach listeners of that role only. A web server that had clients stays open. All of that ends with
the workload. The operator's word goes first: a role that the policy names adopts nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Literal

from vllmwall.cidr import PRIVATE, NetworkSet
from vllmwall.model import (
    PEERS,
    Address,
    AdoptedSource,
    Evidence,
    Label,
    LabelledListener,
    Network,
    Policy,
    Proto,
    Recognition,
    Role,
    Wall,
    Workload,
    WorkloadId,
)

KIND = "adopted"
"""The kind of the evidence that left a web server open."""
MOST_SOURCES = 256
MOST_NAMED = 16

Why = Literal["public", "ours", "too-many"]
"""Why a host was not adopted: it has a public address; it has an address of this node, which hosts
behind NAT share; the workload has `MOST_SOURCES` already."""

_INNER = NetworkSet((*PRIVATE, ip_network("100.64.0.0/10")))  # RFC 6598: shared
NARROW = {4: 16, 6: 48}
"""Prefix lengths: a wider subnet says nothing about its hosts."""
# Ports that other programs than those of the job connect to.
_APART = (
    *(Role.GRPC, Role.METRICS, Role.BACKEND, Role.RAY_DASHBOARD),
    *(Role.RAY_METRICS, Role.RAY_METRICS_EXPORT),
)
_PREFIX = "_adopted"  # no group of the configuration begins so
_Place = tuple[int, int, int, Address | None]  # namespace, family, port
_Met = tuple[Role, "Contact"]


@dataclass(frozen=True)
class Contact:
    """An established TCP connection from another host.

    ``subnet`` is that of the interface that has the address ``local``, ``ours``: ``remote`` is an
    address of this node, or a gateway that may masquerade others.
    """

    namespace: int
    local: Address
    port: int
    remote: Address
    subnet: Network | None = None
    ours: bool = False


@dataclass(frozen=True)
class Refused:
    """A host that was connected and was not adopted."""

    address: Address
    why: Why


@dataclass(frozen=True)
class Adopted:
    """The connections of one workload when its first wall went up, at ``since`` (seconds since the
    epoch). ``web_ports`` are the TCP ports that stay open. Of those that were not adopted,
    ``refused`` are the first few of ``refusals``."""

    workload: WorkloadId
    name: str
    since: float
    sources: tuple[AdoptedSource, ...] = ()
    web_ports: tuple[int, ...] = ()
    refused: tuple[Refused, ...] = ()
    refusals: int = 0


def adopted_by(
    workloads: Iterable[Workload],
    policy: Policy,
    peers: Iterable[Network],
    contacts: Iterable[Contact],
    since: float,
) -> tuple[Adopted, ...]:
    """What each of these workloads adopts of its connections; one that has none is left out."""
    every = tuple(workloads)
    places, trusted = _places(every), NetworkSet(peers)
    met: dict[WorkloadId, set[_Met]] = {}
    for one in contacts:
        found = places.get((one.namespace, one.local.version, one.port, one.local))
        found = found or places.get((one.namespace, one.local.version, one.port, None))
        if found is None or len(found) > 1 or one.remote in trusted:
            continue  # two workloads, or two purposes, share the port
        [(workload, role)] = found
        if _is_undecided(role, policy):
            met.setdefault(workload, set()).add((role, one))
    return tuple(_adopted(one, met[one.id], since) for one in every if one.id in met)


def with_adopted(found: Recognition, adopted: Iterable[Adopted], policy: Policy) -> Recognition:
    """The recognition in which workloads have their adopted hosts, and web servers that had clients
    are APIs."""
    by_id = {one.workload: one for one in adopted}
    if not by_id:
        return found
    workloads = tuple(
        _with(one, by_id[one.id], policy) if one.id in by_id else one for one in found.workloads
    )
    return replace(found, workloads=workloads)


def groups_of(workload: Workload, role: Role, policy: Policy) -> tuple[str, ...]:
    """The names of the adopted groups in the audience of a listener of this role."""
    if not workload.adopted or not _is_undecided(role, policy):
        return ()
    roles = {one.role for one in workload.adopted} & {None, role}
    return tuple(sorted(_name(workload.id, one) for one in roles))


def networks_of(workloads: Iterable[Workload]) -> Mapping[str, tuple[Network, ...]]:
    """The networks of every adopted group."""
    found: dict[str, list[Network]] = {}
    for workload in workloads:
        for one in workload.adopted:
            name = _name(workload.id, one.role)
            found.setdefault(name, []).append(ip_network(one.address))
    return {name: tuple(networks) for name, networks in found.items()}


def is_group(name: str) -> bool:
    """Whether an audience's name is that of an adopted group."""
    return name.startswith(_PREFIX)


def shown(audience: Iterable[str]) -> tuple[str, ...]:
    """An audience for people: adopted groups have one name."""
    return tuple(dict.fromkeys(KIND if is_group(name) else name for name in audience))


def is_left_open(one: LabelledListener) -> bool:
    """Whether it is an API only because it had clients before its first wall."""
    return any(each.kind == KIND for each in one.label.evidence)


def without_adopted(wall: Wall, listeners: Collection[LabelledListener]) -> Wall:
    """The wall for a time at which these workloads have ended: nothing adopted is in it."""
    left_open = {
        (to.family, one.listener.proto, one.listener.port, to.address)
        for one in listeners
        if is_left_open(one) and one.listener.namespace == wall.namespace
        for to in one.listener.bound_to
    }
    entries = frozenset(
        replace(one, audience=(PEERS,), limited=False)
        if (one.family, one.proto, one.port, one.address) in left_open
        else replace(one, audience=tuple(name for name in one.audience if not is_group(name)))
        for one in wall.entries
    )
    networks = {name: nets for name, nets in wall.networks.items() if not is_group(name)}
    return replace(wall, entries=entries, networks=networks)


def _is_undecided(role: Role, policy: Policy) -> bool:
    """Whether the operator left it to us who may connect to this role."""
    return role not in {Role.API, *policy.audiences} and PEERS in policy.default


def _places(workloads: Iterable[Workload]) -> dict[_Place, set[tuple[WorkloadId, Role]]]:
    found: dict[_Place, set[tuple[WorkloadId, Role]]] = {}
    for workload in workloads:
        for one in workload.listeners:
            listener = one.listener
            if listener.proto is Proto.TCP:
                for to in listener.destinations:
                    place = (listener.namespace, to.family, listener.port, to.address)
                    found.setdefault(place, set()).add((workload.id, one.label.role))
    return found


def _adopted(workload: Workload, met: Collection[_Met], since: float) -> Adopted:
    web, refused, sources = set[int](), dict[Address, Why](), set[AdoptedSource]()
    for role, contact in met:
        why = _why_not(contact)
        if role is Role.WEB:
            web.add(contact.port)
        elif why is not None:
            refused[contact.remote] = why
        else:
            sources.add(AdoptedSource(contact.remote, role if role in _APART else None))
    ordered = sorted(
        sources, key=lambda one: (one.role or "", one.address.version, int(one.address))
    )
    for one in ordered[MOST_SOURCES:]:
        refused[one.address] = "too-many"
    named = sorted(refused, key=lambda one: (one.version, int(one)))
    return Adopted(
        workload.id,
        workload.name,
        since,
        tuple(ordered[:MOST_SOURCES]),
        tuple(sorted(web)),
        tuple(Refused(one, refused[one]) for one in named[:MOST_NAMED]),
        len(named),
    )


def _why_not(one: Contact) -> Why | None:
    if one.ours:
        return "ours"
    subnet = one.subnet
    is_neighbour = (
        subnet is not None
        and subnet.prefixlen >= NARROW[subnet.version]
        and one.remote in NetworkSet([subnet])
    )
    return None if is_neighbour or one.remote in _INNER else "public"


def _with(workload: Workload, adopted: Adopted, policy: Policy) -> Workload:
    ports = adopted.web_ports if _is_undecided(Role.WEB, policy) else ()
    listeners = tuple(_opened(one, ports) for one in workload.listeners)
    return replace(workload, listeners=listeners, adopted=adopted.sources)


def _opened(one: LabelledListener, ports: Collection[int]) -> LabelledListener:
    listener, label = one.listener, one.label
    if label.role is not Role.WEB or listener.proto is not Proto.TCP or listener.is_loopback:
        return one
    if listener.port not in ports:
        return one
    why = Evidence(KIND, "clients were connected when the first wall of this workload went up")
    return replace(one, label=Label(Role.API, 1.0, (why, *label.evidence)))


def _name(workload: WorkloadId, role: Role | None) -> str:
    """At most 31 characters, as `vllmwall.enforce.nftables.names` takes them."""
    apart = "" if role is None else f"-{_APART.index(role)}"
    return f"{_PREFIX}-{workload.root_pid:x}-{workload.start_time:x}{apart}"
