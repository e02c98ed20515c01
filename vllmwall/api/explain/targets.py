"""What `explain` is asked about: which listeners, in which namespace, from which sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from vllmwall.api.errors import ControlError, Json
from vllmwall.cidr import without_zone
from vllmwall.engine.reconciler import Reconciler
from vllmwall.model import Address, LabelledListener, Listener, Network, Proto, Workload
from vllmwall.observe.addresses import own_addresses
from vllmwall.observe.namespaces import inode_of_name

PEER, STRANGER = "peer", "stranger"
_STRANGERS = ("203.0.113.9", "198.51.100.9", "192.0.2.9", "2001:db8:bad::9", "3fff::9")
_HOSTS_LOOKED_AT = 16


@dataclass(frozen=True)
class Asked:
    """The question. ``sources`` are addresses, ``peer`` or ``stranger``; ``target`` a port, a
    role, a workload or workload/role; ``namespace`` and ``proto`` empty: any. ``skip``: how many of
    the answers are known already."""

    sources: tuple[str, ...]
    target: str
    source_port: int | None = None
    namespace: str = ""
    proto: str = ""
    to: Address | None = None
    skip: int = 0


@dataclass(frozen=True)
class Door:
    """A port of a namespace, with the listener there, if there is one."""

    namespace: int
    proto: Proto
    port: int
    listener: Listener | None = None


def asked_of(arguments: Json) -> Asked:
    """The question in a request. Raises ControlError."""
    sources, port, to = (arguments.get(key) for key in ("sources", "source_port", "to"))
    if not isinstance(sources, list) or not sources:
        raise ControlError("bad-request", "sources: a list of addresses, peer or stranger")
    try:
        for one in {*map(str, sources)} - {PEER, STRANGER}:
            ip_address(one)
        destination = ip_address(str(to)) if to else None
    except ValueError as error:
        raise ControlError("bad-request", str(error)) from error
    if (proto := str(arguments.get("proto") or "")) not in ("", "tcp", "udp"):
        raise ControlError("bad-request", f"proto: tcp or udp, not {proto!r}")
    return Asked(
        tuple(dict.fromkeys(map(str, sources))),
        str(arguments.get("target", "")),
        port if isinstance(port, int) else None,
        str(arguments.get("namespace") or ""),
        proto,
        destination,
        skip if isinstance(skip := arguments.get("skip"), int) and skip > 0 else 0,
    )


def doors(keeper: Reconciler, asked: Asked) -> list[Door]:
    """The doors that the question is about. Raises ControlError for words that name nothing."""
    wanted = _namespace(keeper, asked.namespace) if asked.namespace else None
    if asked.target.isdigit():
        return _at_port(keeper, asked, wanted)
    found = [
        Door(one.listener.namespace, one.listener.proto, one.listener.port, one.listener)
        for workload, one in _labelled(keeper)
        if _is_meant(asked.target, workload, one)
        and one.listener.proto is not Proto.UNIX
        and asked.proto in ("", one.listener.proto.value)
        and wanted in (None, one.listener.namespace)
    ]
    if not found:
        raise ControlError("failed", _nothing_called(keeper, asked.target))
    return sorted(found, key=lambda door: (door.namespace, door.port, door.proto.value))


def owner_of(keeper: Reconciler, listener: Listener) -> tuple[Workload, LabelledListener] | None:
    """The workload whose listener it is."""
    key = listener.namespace, listener.inode
    for workload, one in _labelled(keeper):
        if (one.listener.namespace, one.listener.inode) == key:
            return workload, one
    return None


def sources(keeper: Reconciler, asked: Asked, own: Sequence[Address]) -> list[Address]:
    """The addresses that ask. Raises ControlError where a word stands for none."""
    found: list[Address] = []
    for word in asked.sources:
        if word == PEER:
            found += _peers(keeper.peers.networks(), own)
        elif word == STRANGER:
            found += _strangers(keeper)
        else:
            found.append(without_zone(ip_address(word)))
    return found


def own_of(keeper: Reconciler, namespace: int) -> tuple[Address, ...]:
    """The namespace's own addresses; none where they cannot be read."""
    with suppress(OSError, KeyError):
        return own_addresses(keeper.observer.namespaces.path(namespace))
    return ()


def destination(door: Door, source: Address, own: Sequence[Address], to: Address | None) -> Address:
    """Where the packet goes: as asked, to the one address the listener has, or to any of ours."""
    bound = door.listener.plain_address if door.listener else None
    if to is not None:
        return to
    if bound is not None and not bound.is_unspecified:
        return without_zone(bound)
    families = [one for one in own if one.version == source.version]
    outside = [one for one in families if not one.is_loopback and not one.is_link_local]
    if source.is_loopback:
        return source
    found = next(iter(outside or families), None)
    if found is None or (door.listener and not door.listener.reached_by(found)):
        is_six = source.version == 6
        same_family = ip_address("2001:db8::1" if is_six else "192.0.2.1")  # for want of a better
        if door.listener is None or door.listener.reached_by(same_family):
            return same_family
        return next((one for one in own if door.listener.reached_by(one)), bound or same_family)
    return found


def _at_port(keeper: Reconciler, asked: Asked, wanted: int | None) -> list[Door]:
    port = int(asked.target)
    if not 1 <= port <= 65535:
        raise ControlError("failed", f"{port} is no port: 1 to 65535")
    everywhere = keeper.observer.namespaces.inodes if wanted is None else (wanted,)
    found = [
        one
        for inode in everywhere
        for one in keeper.observer.namespaces.listeners(inode, port)
        if asked.proto in ("", one.proto.value) and (asked.to is None or one.reached_by(asked.to))
    ]
    outside = [one for one in found if not one.is_loopback] or found
    if outside:
        return [Door(one.namespace, one.proto, port, _known(keeper, one)) for one in outside]
    home = wanted or next(iter(keeper.only), keeper.observer.namespaces.own)
    return [Door(home, Proto(asked.proto or "tcp"), port)]


def _known(keeper: Reconciler, found: Listener) -> Listener:
    """The same with its owners, which sock_diag does not tell."""
    for one in keeper.observer.node().listeners:
        if (one.namespace, one.inode) == (found.namespace, found.inode):
            return one
    return found


def _labelled(keeper: Reconciler) -> Iterator[tuple[Workload, LabelledListener]]:
    for workload in keeper.recognition.workloads:
        for one in workload.listeners:
            yield workload, one


def _is_meant(target: str, workload: Workload, one: LabelledListener) -> bool:
    """A name can hold slashes (models do), so that it is compared whole first."""
    role = one.label.role.value
    return target in (role, workload.name, f"{workload.name}/{role}")


def _nothing_called(keeper: Reconciler, target: str) -> str:
    names = sorted({workload.name for workload, _ in _labelled(keeper)})
    here = sorted({one.label.role.value for _, one in _labelled(keeper)})
    if not names:
        return f"nothing here is called {target!r}: no workload listens. Ask for a port number"
    return (
        f"nothing that matches here is called {target!r}. Workloads: {', '.join(names)}; "
        f"roles: {', '.join(here)}"
    )


def _namespace(keeper: Reconciler, name: str) -> int:
    namespaces = keeper.observer.namespaces
    for inode in namespaces.inodes:
        if name in (namespaces.name(inode), str(inode)):
            return inode
    with suppress(OSError):
        inode = inode_of_name(name)
        if inode in namespaces.inodes:
            return inode
    known = ", ".join(sorted(namespaces.name(inode) for inode in namespaces.inodes))
    raise ControlError("failed", f"no network namespace {name!r} with a process in it; try {known}")


def _peers(networks: Iterable[Network], own: Sequence[Address]) -> list[Address]:
    """One address of each family that is not this host's own."""
    found: dict[int, Address] = {}
    for network in networks:
        for one in _some_hosts(network):
            if one not in own:
                found.setdefault(network.version, one)
    if not found:
        raise ControlError("failed", "no peers are known: vllmwall peers add, or peers.cidrs")
    return [found[version] for version in sorted(found)]


def _some_hosts(network: Network) -> Iterator[Address]:
    first, last = int(network.network_address), int(network.broadcast_address)
    start = first + (1 if last - first > 1 else 0)
    for value in range(start, min(last, start + _HOSTS_LOOKED_AT) + 1):
        yield type(network.network_address)(value)


def _strangers(keeper: Reconciler) -> list[Address]:
    """Of the addresses that documentation may use, one of each family that nothing here names."""
    groups = [one for networks in keeper.policy.groups.values() for one in networks]
    known = [*keeper.peers.networks(), *groups, *keeper.bans.networks()]
    found: dict[int, Address] = {}
    for address in map(ip_address, _STRANGERS):
        if not any(address.version == one.version and address in one for one in known):
            found.setdefault(address.version, address)
    if not found:
        raise ControlError(
            "failed", "peers, groups and bans name every address: who is a stranger?"
        )
    return [found[version] for version in sorted(found)]
