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
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
from vllmwall.observe.shares import Shares

_MOST = 2048  # connections of one user that are compared in one namespace
_MOST_READ = 1 << 14
_SHARE = 16384  # descriptors of one user that are looked at
_PROCESS = 64  # a process costs as much time as so many of them
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
                flows = run_in(path(place.inode), partial(_flows, place))
                for outer, inner in _relays(flows, processes, members):
                    self._inner[place.inode, outer.inode] = inner.inode
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


_Count = tuple[int, int]
_Sockets = dict[int, tuple[_Count, Listener]]
"""By inode: the bytes that came and went at a connection, and the listener that it is to."""


@dataclass(frozen=True)
class _Flows:
    """The connections that came to outer listeners, and those to inner ones, where the counts of
    one kind occur in the other. ``count`` of the second kind is turned round."""

    came: _Sockets
    going: _Sockets


def _flows(place: Place) -> _Flows:
    """Those in the calling thread's network namespace. Raises OSError."""
    inner, outer = _by_port(place.inner), _by_port(place.outer)
    users = {one.uid for one in place.outer}
    going: _Sockets = {}
    with closing(netlink.opened(netlink.SOCK_DIAG)) as diag:
        for one in _of_users(established(diag, inner.keys(), remote=True), users):
            to = _at(inner, one.connection.remote, one.connection.remote_port)
            if to is not None and one.received + one.sent > 1:
                going[one.inode] = (one.sent - 1, one.received), to
    counts = {count for count, _ in going.values()}
    came: dict[int, tuple[_Count, Listener, Connection]] = {}
    with closing(netlink.opened(netlink.SOCK_DIAG)) as diag:
        for one in _of_users(established(diag, outer.keys()), users) if going else ():
            at = _at(outer, one.connection.local, one.connection.local_port)
            if at is not None and (one.received, one.sent) in counts:
                came[one.inode] = (one.received, one.sent), at, one.connection
    with closing(netlink.opened(netlink.NETFILTER)) as asked:
        return _Flows(
            {
                inode: (count, at)
                for inode, (count, at, connection) in came.items()
                if not _came_by_nat(asked, connection)
            },
            going,
        )


def _of_users(found: Iterable[Established], users: Collection[int]) -> Iterator[Established]:
    """The established ones of these users, as many of each: none hides those of another."""
    seen = Counter[int]()
    for one in islice(found, _MOST_READ):
        uid = one.connection.uid
        if one.state == "established" and one.inode and uid in users and seen[uid] < _MOST:
            seen[uid] += 1
            yield one


def _came_by_nat(asked: socket, connection: Connection) -> bool:
    """Without connection tracking there is no NAT."""
    try:
        return is_redirected(asked, connection)
    except OSError as error:
        return error.errno not in _NOT_TRACKED


def _relays(
    flows: _Flows, processes: Mapping[int, Process], members: Collection[int]
) -> Iterator[tuple[Listener, Listener]]:
    """The outer and the inner listener of flows that one process holds both ends of, which has
    the outer listener or a parent that has it (socat forks for each connection).
    """
    known: dict[int, set[int]] = {}
    shares, children = Shares(_SHARE, 4 * _SHARE), _children(processes) if flows.came else {}
    for outer in {(one.namespace, one.inode): one for _, one in flows.came.values()}.values():
        family = {one for pid in outer.pids for one in (pid, *children.get(pid, ()))}
        for pid in sorted(family & processes.keys() - set(members)):
            if processes[pid].uid != outer.uid:
                continue
            if pid not in known and shares.take(outer.uid, 0):
                known[pid], looked = sockets_of(pid)
                shares.use(outer.uid, looked + _PROCESS)
            held = known.get(pid, set())
            ends = (flows.going[inode] for inode in held & flows.going.keys())
            leads = {count: inner for count, inner in ends if inner.uid == outer.uid}
            came = (flows.came[inode] for inode in held & flows.came.keys())
            for count, at in came:
                if at == outer and count in leads:
                    yield outer, leads[count]


def _at(those: Mapping[int, Sequence[Listener]], address: object, port: int) -> Listener | None:
    """The listener at this address and port, among those of each port."""
    found = those.get(port, ())
    exact = (one for one in found if one.plain_address == address)
    return next(exact, next(iter(found), None))


def _by_port(those: Iterable[Listener]) -> Mapping[int, Sequence[Listener]]:
    found: dict[int, list[Listener]] = {}
    for one in those:
        found.setdefault(one.port, []).append(one)
    return found


def _children(processes: Mapping[int, Process]) -> Mapping[int, Sequence[int]]:
    found: dict[int, list[int]] = {}
    for pid, one in processes.items():
        found.setdefault(one.ppid, []).append(pid)
    return found
