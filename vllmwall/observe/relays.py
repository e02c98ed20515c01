"""Relays: processes of no workload that hand the bytes of their clients to a workload's port.

The evidence is the kernel's count of bytes (struct tcp_info): a process accepted a connection and
made another one to a workload's port of its own user, and as many bytes went out of each as came
in by the other one. A server that asks a workload for something of its own (a metrics scraper, an
HTTP proxy, which writes headers) has other counts. Nobody else can make a process relay to a port
that it was not told to; and a workload that takes the place of the one behind a relay of another
user changes nothing, since both ends must be of one user.

A relay is known from then on, as long as both listeners exist. A connection that NAT redirected to
it proves nothing: such packets are judged by their first port.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from socket import socket

from vllmwall.linux import netlink
from vllmwall.linux.connections import Connection, Established, established
from vllmwall.linux.conntrack import is_redirected
from vllmwall.linux.netns import run_in
from vllmwall.model import Listener, Process, Proto
from vllmwall.observe.owners import sockets_of

_MOST = 4096  # connections that are compared in one namespace
_NOT_TRACKED = (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP)

Relay = tuple[int, int, int]
"""The network namespace, and the inodes of the outer and the inner listener."""


@dataclass(frozen=True)
class Place:
    """The TCP listeners of one network namespace: those of workloads, and those of others at which
    they could be reached through a relay."""

    inode: int
    inner: tuple[Listener, ...]
    outer: tuple[Listener, ...]


@dataclass
class Relays:
    """Remembers the relays of this node between passes."""

    _inner: dict[tuple[int, int], int] = field(default_factory=dict)

    def update(
        self,
        listeners: Collection[Listener],
        processes: Mapping[int, Process],
        members: Collection[int],
        path: Callable[[int], str],
    ) -> tuple[Relay, ...]:
        """The relays now. ``members`` are the pids of workloads; ``path`` leads into a namespace.

        Namespaces that end meanwhile have none.
        """
        present = {(one.namespace, one.inode) for one in listeners}
        self._inner = {
            key: inner
            for key, inner in self._inner.items()
            if key in present and (key[0], inner) in present
        }
        for place in _places(listeners, members):
            with suppress(OSError, KeyError):
                pairs = run_in(path(place.inode), partial(_pairs, place))
                self._inner.update(_relays(place, pairs, processes, members))
        return tuple((space, outer, inner) for (space, outer), inner in self._inner.items())


def _places(listeners: Iterable[Listener], members: Collection[int]) -> Iterator[Place]:
    """The namespaces with listeners of both kinds, of one user."""
    spaces: dict[int, list[Listener]] = {}
    for one in listeners:
        if one.proto is Proto.TCP and one.pids:
            spaces.setdefault(one.namespace, []).append(one)
    for inode, those in spaces.items():
        inner = tuple(one for one in those if not set(one.pids).isdisjoint(members))
        users = {one.uid for one in inner}
        outer = tuple(
            one
            for one in those
            if set(one.pids).isdisjoint(members) and not one.is_loopback and one.uid in users
        )
        if inner and outer:
            yield Place(inode, inner, outer)


Pair = tuple[Established, Established]
"""A connection that came to an outer listener, and one to an inner listener, with equal counts."""


def _pairs(place: Place) -> list[Pair]:
    """Those in the calling thread's network namespace. Raises OSError."""
    inner, outer = ({one.port for one in those} for those in (place.inner, place.outer))
    with closing(netlink.opened(netlink.SOCK_DIAG)) as diag:
        going: dict[tuple[int, int], list[Established]] = {}
        for one in islice(established(diag, inner, remote=True), _MOST):
            if one.state == "established" and one.received + one.sent > 1:
                going.setdefault((one.received, one.sent - 1), []).append(one)
    if not going:
        return []
    with closing(netlink.opened(netlink.SOCK_DIAG)) as diag:
        came = [
            one
            for one in islice(established(diag, outer), _MOST)
            if one.state == "established" and (one.sent, one.received) in going
        ]
    with closing(netlink.opened(netlink.NETFILTER)) as asked:
        came = [one for one in came if not _came_by_nat(asked, one.connection)]
    return [(one, other) for one in came for other in going[one.sent, one.received]]


def _came_by_nat(asked: socket, connection: Connection) -> bool:
    """Without connection tracking there is no NAT."""
    try:
        return is_redirected(asked, connection)
    except OSError as error:
        return error.errno not in _NOT_TRACKED


def _relays(
    place: Place, pairs: Iterable[Pair], processes: Mapping[int, Process], members: Collection[int]
) -> Iterator[tuple[tuple[int, int], int]]:
    """The pairs that one process holds, which has the outer listener or a parent that has it."""
    held: dict[int, set[int]] = {}
    for one, other in pairs:
        outer = _listener(place.outer, one.connection.local, one.connection.local_port)
        inner = _listener(place.inner, other.connection.remote, other.connection.remote_port)
        if outer is None or inner is None or outer.uid != inner.uid:
            continue
        for pid in _family(outer, processes, members):
            if pid not in held:
                held[pid] = sockets_of(pid)
            if {one.inode, other.inode} <= held[pid] and processes[pid].uid == inner.uid:
                yield (place.inode, outer.inode), inner.inode


def _listener(those: Iterable[Listener], address: object, port: int) -> Listener | None:
    found = [one for one in those if one.port == port]
    exact = [one for one in found if one.plain_address == address]
    return next(iter(exact or found), None)


def _family(
    listener: Listener, processes: Mapping[int, Process], members: Collection[int]
) -> list[int]:
    """The processes that hold it, and their children (socat forks for each connection)."""
    found = {pid for pid in listener.pids if pid in processes}
    found |= {pid for pid, one in processes.items() if one.ppid in found}
    return sorted(found - set(members))
