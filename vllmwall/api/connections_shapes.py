"""The JSON of `vllmwall connections`. Imports next to nothing: the command line pays for it."""

from __future__ import annotations

from vllmwall.api.typed import TypedDict

CONNECTIONS_VERSION = 1


class ClientJson(TypedDict):
    """The connections of one client to one listener that are in the same state.

    ``bytes_received`` and ``bytes_sent`` are data as this end sees it, ``bytes_sent`` what the
    client has acknowledged. ``here``: the client is on this host. ``client_ports`` are at most
    eight.
    """

    client: str
    client_ports: list[int]
    namespace: str
    addr: str
    port: int
    role: str
    workload: str
    stack: str
    audience: list[str]
    state: str
    connections: int
    bytes_received: int
    bytes_sent: int
    here: bool


class ConnectionsJson(TypedDict):
    """The answer to `vllmwall connections`. ``complete`` False: there are more than could be read.

    ``workloads`` are the names of all of them, connected to or not. ``problems``: what could not
    be read, and why.
    """

    version: int
    time: float
    complete: bool
    workloads: list[str]
    clients: list[ClientJson]
    problems: list[str]
