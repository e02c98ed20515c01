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
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
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
_MOST_ASKED = 128  # of one user, connection tracking is asked about in a pass
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
    _tracking: dict[tuple[int, int], bool] = field(default_factory=dict)
    _over: set[int | None] = field(default_factory=set)

    @property
    def left_out(self) -> Iterator[str]:
        """Whose connections were not all looked at, a line for each."""
        for uid in self._over:
            whose = "all users" if uid is None else f"user {uid}"
            yield f"{whose}: too many connections: a relay may not be recognized among the others"

    def update(
        self,
        listeners: Collection[Listener],
        processes: Mapping[int, Process],
        members: Collection[int],
        path: Callable[[int], str],
        catch_up: Callable[[], None] = lambda: None,
    ) -> tuple[Relay, ...]:
        """The relays now. ``members`` are the pids of workloads; ``path`` leads into a namespace.

        Namespaces that end meanwhile have none. ``catch_up`` is called every few milliseconds.
        """
        self._over.clear()
        tracking, self._tracking = self._tracking, {}
        present = {(one.namespace, one.inode) for one in listeners}
        self._inner = {
            key: inner
            for key, inner in self._inner.items()
            if key in present and (key[0], inner) in present
        }
        for place in _places(listeners, members):
            with suppress(OSError, KeyError):
                search = _Search(place, tracking, self._tracking, self._over, catch_up)
                with closing(run_in(path(place.inode), _Sockets)) as sockets:
                    flows = search.flows(sockets)
                for outer, inner in _relays(flows, processes, members, catch_up):
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
_Ends = dict[int, tuple[_Count, Listener]]
"""By inode: the bytes that came and went at a connection, and the listener that it is to."""


@dataclass(frozen=True)
class _Flows:
    """The connections that came to outer listeners, and those to inner ones, where the counts of
    one kind occur in the other. ``count`` of the second kind is turned round."""

    came: _Ends
    going: _Ends


class _Sockets:
    """Sockets of the namespace of the calling thread; any thread may use them afterwards."""

    def __init__(self) -> None:
        with ExitStack() as stack:

            def opened(protocol: int) -> socket:
                return stack.enter_context(closing(netlink.opened(protocol)))

            self.to_inner, self.to_outer = opened(netlink.SOCK_DIAG), opened(netlink.SOCK_DIAG)
            self.tracking = opened(netlink.NETFILTER)
            self.close = stack.pop_all().close


@dataclass(frozen=True)
class _Search:
    """A search for relays in one place. ``known`` is what connection tracking said of a connection
    in the pass before, by namespace and inode; ``now`` the same in this one. ``over``: the users
    that have more connections than are looked at, None for everybody."""

    place: Place
    known: Mapping[tuple[int, int], bool]
    now: dict[tuple[int, int], bool]
    over: set[int | None]
    catch_up: Callable[[], None]

    def flows(self, sockets: _Sockets) -> _Flows:
        """The flows there. Raises OSError."""
        inner, outer = _by_port(self.place.inner), _by_port(self.place.outer)
        going: _Ends = {}
        for one in self._of_users(established(sockets.to_inner, inner.keys(), remote=True)):
            to = _at(inner, one.connection.remote, one.connection.remote_port)
            if to is not None and one.received + one.sent > 1:
                going[one.inode] = (one.sent - 1, one.received), to
        counts = {count for count, _ in going.values()}
        came: _Ends = {}
        asked = Counter[int]()
        found = self._of_users(established(sockets.to_outer, outer.keys())) if going else ()
        for one in found:
            at = _at(outer, one.connection.local, one.connection.local_port)
            is_alike = at is not None and (one.received, one.sent) in counts
            if at and is_alike and self._came_straight(one, sockets.tracking, asked):
                came[one.inode] = (one.received, one.sent), at
        return _Flows(came, going)

    def _came_straight(self, one: Established, tracking: socket, asked: Counter[int]) -> bool:
        """Whether no NAT redirected it, as far as is known: what is too many is asked later."""
        key, uid = (self.place.inode, one.inode), one.connection.uid
        by_nat = self.known.get(key)
        if by_nat is None and asked[uid] < _MOST_ASKED:
            asked[uid] += 1
            by_nat = _came_by_nat(tracking, one.connection)
        if by_nat is None:
            self.over.add(uid)
            return False
        self.now[key] = by_nat
        return not by_nat

    def _of_users(self, found: Iterable[Established]) -> Iterator[Established]:
        """The established ones of these users, as many of each: none hides those of another."""
        users, seen = {one.uid for one in self.place.outer}, Counter[int]()
        for number, one in enumerate(found):
            self.catch_up()
            if number == _MOST_READ:
                self.over.add(None)
                return
            uid = one.connection.uid
            if one.state == "established" and one.inode and uid in users:
                seen[uid] += 1
                if seen[uid] <= _MOST:
                    yield one
                else:
                    self.over.add(uid)


def _came_by_nat(asked: socket, connection: Connection) -> bool:
    """Without connection tracking there is no NAT."""
    try:
        return is_redirected(asked, connection)
    except OSError as error:
        return error.errno not in _NOT_TRACKED


def _relays(
    flows: _Flows,
    processes: Mapping[int, Process],
    members: Collection[int],
    catch_up: Callable[[], None],
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
            catch_up()
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
