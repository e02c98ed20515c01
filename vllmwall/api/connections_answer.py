"""The answer to `vllmwall connections`: connections by client and listener, as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vllmwall.api.connections_shapes import (
    CONNECTIONS_VERSION,
    ClientJson,
    ConnectionsJson,
)

_PORTS = 8


@dataclass(frozen=True)
class Door:
    """A listener of a workload that clients come in by."""

    namespace: str
    address: str
    port: int
    role: str
    workload: str
    stack: str
    audience: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """One connection to a listener."""

    door: Door
    client: str
    client_port: int
    state: str
    received: int
    sent: int
    is_here: bool


def connections_json(
    seen: Iterable[Seen],
    workloads: Iterable[str],
    problems: Iterable[str],
    now: float,
    *,
    complete: bool = True,
) -> ConnectionsJson:
    """Who is connected, in the order of workload, role and client."""
    groups: dict[tuple[Door, str, str], list[Seen]] = {}
    for one in seen:
        groups.setdefault((one.door, one.client, one.state), []).append(one)
    clients = [_client_json(group) for group in groups.values()]
    return {
        "version": CONNECTIONS_VERSION,
        "time": now,
        "complete": complete,
        "workloads": sorted(set(workloads)),
        "clients": sorted(clients, key=_order),
        "problems": list(problems),
    }


def _client_json(group: list[Seen]) -> ClientJson:
    first, door = group[0], group[0].door
    return {
        "client": first.client,
        "client_ports": sorted(one.client_port for one in group)[:_PORTS],
        "namespace": door.namespace,
        "addr": door.address,
        "port": door.port,
        "role": door.role,
        "workload": door.workload,
        "stack": door.stack,
        "audience": list(door.audience),
        "state": first.state,
        "connections": len(group),
        "bytes_received": sum(one.received for one in group),
        "bytes_sent": sum(one.sent for one in group),
        "here": first.is_here,
    }


def _order(one: ClientJson) -> tuple[str, str, str, int, str, str]:
    place = one["workload"], one["namespace"], one["role"], one["port"]
    return *place, one["client"], one["state"]
