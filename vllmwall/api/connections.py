"""`vllmwall connections`: the clients that are connected to the workloads of this node."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from functools import partial
from itertools import islice

from vllmwall.api.connections_answer import Door, Seen, connections_json
from vllmwall.api.errors import Json
from vllmwall.engine.state import State
from vllmwall.linux import netlink
from vllmwall.linux.connections import is_here
from vllmwall.linux.established import Established, established
from vllmwall.linux.netns import run_in
from vllmwall.model import Address, LabelledListener, Proto, Workload

MOST = 2048  # connections that one answer is made of: 50 ms
_Doors = Mapping[tuple[int, int, Address | None], Door]


def connections(state: State, _: Json) -> Json:
    """Every connection at a listener of a workload, in all namespaces, loopback left out."""
    observer = state.reconciler.observer
    seen: list[Seen] = []
    problems: list[str] = []
    complete = True
    for inode, doors in _doors(state).items():
        room = MOST - len(seen)
        try:
            found = run_in(observer.namespaces.path(inode), partial(_read, doors, room + 1))
        except (OSError, KeyError) as error:
            name = observer.namespaces.name(inode)
            problems.append(f"{name}: connections cannot be read: {error}")
            continue
        complete = complete and len(found) <= room
        seen += found[:room]
    names = [one.name for one in state.reconciler.recognition.workloads]
    return connections_json(seen, names, problems, time.time(), complete=complete)


def _read(doors: _Doors, most: int) -> list[Seen]:
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
    return [_seen(door, one, one.connection.remote in local) for door, one in found]


def _door_of(one: Established, doors: _Doors) -> Door | None:
    """The listener on the exact address before the one on any, as the kernel finds it."""
    local, port = one.connection.local, one.connection.local_port
    exact = doors.get((local.version, port, local))
    return exact or doors.get((local.version, port, None))


def _seen(door: Door, one: Established, here: bool) -> Seen:
    return Seen(
        door=door,
        client=str(one.connection.remote),
        client_port=one.connection.remote_port,
        state=one.state,
        received=one.received,
        sent=one.sent,
        is_here=here,
    )


def _doors(state: State) -> Mapping[int, _Doors]:
    """The TCP listeners of all workloads, by namespace; those on loopback are nobody's door."""
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
        address=one.listener.address_text,
        port=one.listener.port,
        role=role.value,
        workload=workload.name,
        stack=workload.stack.value,
        audience=state.reconciler.policy.audience_of(role),
    )
