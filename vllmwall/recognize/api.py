"""The conditions for the role ``api``, the only one that is public by default.

Two of three must hold, and nothing may speak against it: the port is the flag, setting or
default of the server's own command line; ``listen()`` had the backlog that its web server asks
for; the process tree makes the owner an API server. A title alone is never evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vllmwall.model import Evidence, Label, Listener, Proto, Role
from vllmwall.recognize.fingerprints import (
    GRPC_BACKLOG,
    SOMAXCONN_BACKLOG,
    UVICORN_BACKLOG,
    library_label,
)
from vllmwall.recognize.stack_rules import ListenerContext

_TWO_OF_THREE = 2
_LEAST_SOMAXCONN = 128
_CERTAIN = 0.8
_CONFIDENCE = {2: 0.9, 3: 0.99}

HTTP = frozenset({UVICORN_BACKLOG})
GRPC = frozenset({GRPC_BACKLOG, SOMAXCONN_BACKLOG})


@dataclass(frozen=True)
class ApiCase:
    """The evidence that a listener of one owner is its server's API.

    ``ports`` maps the expected ports to how they are known (``flag``, ``config``,
    ``default-port``); None: the command line does not show it. ``serves`` is why the tree makes
    the owner an API server; empty: it does not. ``backlogs`` are those of its web server, None
    where that differs by version; only uvicorn's 2048 is rare enough to be evidence. ``wide_v6``
    is True when a server with that option binds ``[::]``.
    """

    ports: Mapping[int, str] | None
    serves: str
    backlogs: frozenset[int] | None = HTTP
    wide_v6: bool = False


def api_label(context: ListenerContext, case: ApiCase) -> Label | None:
    """``api`` when the evidence is strong enough, else None."""
    listener = context.listener
    if _speaks_against(listener, case, context.queue_cap):
        return None
    if case.backlogs is None and is_certain(library_label(context)):
        return None
    evidence = []
    if case.ports is not None:
        evidence.append(Evidence(case.ports[listener.port], f"port {listener.port}"))
    if _is_uvicorn(listener, context.queue_cap) and UVICORN_BACKLOG in (case.backlogs or HTTP):
        evidence.append(Evidence("backlog", str(UVICORN_BACKLOG)))
    if case.serves:
        evidence.append(Evidence("tree", case.serves))
    if len(evidence) < _TWO_OF_THREE:
        return None
    return Label(Role.API, _CONFIDENCE[len(evidence)], tuple(evidence))


def _speaks_against(listener: Listener, case: ApiCase, cap: int) -> bool:
    address = listener.address
    if address is None or listener.proto is not Proto.TCP:
        return True
    if case.ports is not None and listener.port not in case.ports:
        return True
    wide_v6 = address.version == 6 and address.is_unspecified
    if wide_v6 and not case.wide_v6 and not _is_uvicorn(listener, cap):
        return True  # a TCPStore on the port that the flag names, not a web server
    if case.backlogs is None:
        return False
    if listener.backlog is not None:
        return listener.backlog not in case.backlogs
    queue = listener.queue_limit
    return queue is not None and not _may_show(queue, case.backlogs, cap)


def is_certain(fingerprint: Label | None) -> bool:
    """A library that no API is made of opened it, and more than its age says so."""
    return fingerprint is not None and fingerprint.confidence >= _CERTAIN


def _may_show(queue: int, backlogs: frozenset[int], cap: int) -> bool:
    """sock_diag can show this queue for one of the backlogs: as asked, or cut to somaxconn."""
    cut = SOMAXCONN_BACKLOG in backlogs or queue <= max(backlogs)
    return queue in backlogs or (cut and queue >= max(cap, _LEAST_SOMAXCONN))


def _is_uvicorn(listener: Listener, cap: int) -> bool:
    """2048 as an argument, or as a queue that somaxconn cannot have made."""
    if listener.backlog is not None:
        return listener.backlog == UVICORN_BACKLOG
    return listener.queue_limit == UVICORN_BACKLOG and cap > UVICORN_BACKLOG
