"""`vllmwall connections`: the clients that are connected to the workloads of this node."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from vllmwall.api.errors import NoArguments
from vllmwall.decide.walls import audience_at
from vllmwall.linux import netlink
from vllmwall.linux.connections import Established, established, is_here
from vllmwall.linux.netns import run_in
from vllmwall.model import Address, LabelledListener, Proto, Workload

if TYPE_CHECKING:
    from vllmwall.engine.state import State

MOST = 2048  # connections that one answer is made of: 50 ms
_PORTS = 8


@dataclass(frozen=True)
class Door:
    """A listener of a workload that clients connect to."""

    namespace: str
    addr: str
    port: int
    role: str
    workload: str
    stack: str
    audience: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Client(Door):
    """The connections of one client to one listener that are in the same state.

    ``bytes_received`` and ``bytes_sent`` are data as this end sees it, ``bytes_sent`` what the
    client has acknowledged. ``here``: the client is on this host. ``client_ports`` are at most
    eight.
    """

    client: str
    client_ports: tuple[int, ...]
    state: str
    connections: int
    bytes_received: int
    bytes_sent: int
    here: bool


@dataclass(frozen=True, kw_only=True)
class Connections:
    """The answer to `vllmwall connections`. ``complete`` False: there are more than could be read.

    ``workloads`` are the names of all of them, connected to or not. ``problems``: what could not
    be read, and why.
    """

    version: int = 1
    time: float
    complete: bool
    workloads: tuple[str, ...]
    clients: tuple[Client, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Seen:
    """One connection to a listener. ``is_here``: from this host."""

    door: Door
    found: Established
    is_here: bool


_Doors = Mapping[tuple[int, int, Address | None], Door]


def connections(state: State, _: NoArguments) -> Connections:
    """Every connection to a listener of a workload, in all namespaces; loopback is left out."""
    namespaces = state.reconciler.observer.namespaces
    seen: list[_Seen] = []
    problems: list[str] = []
    complete = True
    for inode, doors in _doors(state).items():
        room = MOST - len(seen)
        try:
            found = run_in(namespaces.path(inode), partial(_read, doors, room + 1))
        except (OSError, KeyError) as error:
            problems.append(f"{namespaces.name(inode)}: connections cannot be read: {error}")
            continue
        complete = complete and len(found) <= room
        seen += found[:room]
    return Connections(
        time=time.time(),
        complete=complete,
        workloads=tuple(sorted({one.name for one in state.reconciler.recognition.workloads})),
        clients=_clients(seen),
        problems=tuple(problems),
    )


def _clients(seen: Iterable[_Seen]) -> tuple[Client, ...]:
    """Who is connected, in the order of workload, role and client."""
    groups: dict[tuple[Door, Address, str], list[_Seen]] = {}
    for one in seen:
        groups.setdefault((one.door, one.found.connection.remote, one.found.state), []).append(one)
    return tuple(sorted(map(_client, groups.values()), key=_order))


def _client(group: list[_Seen]) -> Client:
    first = group[0]
    ports = sorted(one.found.connection.remote_port for one in group)
    return Client(
        **vars(first.door),
        client=str(first.found.connection.remote),
        client_ports=tuple(ports[:_PORTS]),
        state=first.found.state,
        connections=len(group),
        bytes_received=sum(one.found.received for one in group),
        bytes_sent=sum(one.found.sent for one in group),
        here=first.is_here,
    )


def _order(one: Client) -> tuple[str, str, str, int, str, str]:
    return one.workload, one.namespace, one.role, one.port, one.client, one.state


def _read(doors: _Doors, most: int) -> list[_Seen]:
    """In the network namespace of the calling thread. Raises OSError."""
    with (
        closing(netlink.opened(netlink.SOCK_DIAG)) as diag,
        closing(netlink.opened(netlink.ROUTE)) as route,
    ):
        ports = {port for _, port, _ in doors}
        found = [
            (door, one)
            for one in islice(established(diag, ports), most)
            if (door := _door_of(one, doors)) is not None
        ]
        remotes = {one.connection.remote for _, one in found}
        local = {remote for remote in remotes if is_here(route, remote)}
    return [_Seen(door, one, one.connection.remote in local) for door, one in found]


def _door_of(one: Established, doors: _Doors) -> Door | None:
    """The listener on the exact address before the one on any, as the kernel finds it."""
    local, port = one.connection.local, one.connection.local_port
    exact = doors.get((local.version, port, local))
    return exact or doors.get((local.version, port, None))


def _doors(state: State) -> Mapping[int, _Doors]:
    """The TCP listeners of all workloads, by namespace."""
    found: dict[int, dict[tuple[int, int, Address | None], Door]] = {}
    for workload in state.reconciler.recognition.workloads:
        for one in workload.listeners:
            listener = one.listener
            if listener.proto is not Proto.TCP:
                continue
            door = _door(state, workload, one)
            for to in listener.destinations:
                places = found.setdefault(listener.namespace, {})
                places.setdefault((to.family, listener.port, to.address), door)
    return found


def _door(state: State, workload: Workload, one: LabelledListener) -> Door:
    role = one.label.role
    return Door(
        namespace=state.reconciler.observer.namespaces.name(one.listener.namespace),
        addr=one.listener.address_text,
        port=one.listener.port,
        role=role.value,
        workload=workload.name,
        stack=workload.stack.value,
        audience=audience_at(one.listener, role, state.reconciler.policy, workload),
    )
