"""A socket server for a poll loop: bounded in clients, bytes, requests and time; it waits for none.

The loop polls `descriptors` and passes each ready one to `ready`. Every call does one step for one
client: it reads from it, has one request answered, or sends. Nothing is read from a client whose
answer is not made, not taken or not due yet: what it sends waits in the kernel. Root's clients have
places of their own and a turn in every round; of all others one request is answered in a round.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from vllmwall.linux.listening import BACKLOG

_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_ACCEPT_PAUSE = 0.01  # seconds, after as many clients as one round takes
ROOT = 0


@dataclass(frozen=True)
class Bounds:
    """The limits of a server. Times are in seconds.

    ``clients`` is for all users but root, ``of_user`` for one user and for root. ``bytes`` is the
    size of one request. A user with ``outgoing`` bytes of answers that were not taken gets no
    other answer. A client is dropped ``seconds`` after it came, or after ``stalled`` in which it
    took nothing of its answer. One user gets ``rate`` requests a second and ``share`` of the time.
    """

    clients: int = BACKLOG
    of_user: int = BACKLOG
    bytes: int = 64 * 1024
    outgoing: int = 4 * 1024 * 1024
    seconds: float = inf
    stalled: float = 30.0
    rate: float = inf
    share: float = 1.0


@dataclass
class Account:
    """What one user, or one client of root, has used. ``due``: when its next request is taken."""

    clients: list[Client] = field(default_factory=list)
    due: float = 0.0

    def is_due(self, now: float, bounds: Bounds) -> bool:
        """Whether another request may be taken."""
        return self.due <= now and sum(len(one.outgoing) for one in self.clients) < bounds.outgoing


@dataclass(eq=False)
class Client:
    """One client of the user ``uid``. ``until`` is when it is dropped (monotonic seconds).

    While ``is_pending`` its answer is being made elsewhere; ``is_gone`` when it has left or was
    dropped. With ``is_last`` the connection ends when everything has been sent. ``is_partial``:
    ``incoming`` holds no whole request.
    """

    socket: socket.socket
    uid: int
    account: Account
    until: float = inf
    stalls: float = inf
    incoming: bytes = b""
    outgoing: bytes = b""
    is_pending: bool = False
    is_last: bool = False
    is_gone: bool = False
    is_partial: bool = True


def one_user(_: socket.socket) -> int:
    """All clients are of the same user, and none is root's."""
    return -1


def unix_user(connection: socket.socket) -> int:
    """The user at the other end, by the kernel's word. The daemon's own user is taken for root."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid = int(_CREDENTIALS.unpack(found)[1])
    return ROOT if uid == os.geteuid() else uid


class LoopServer:
    """Serves ``listening``. ``take`` gets a client with new input and takes one request from its
    ``incoming``; it sets ``outgoing`` or ``is_pending``, or neither where the request is not
    complete. It must not raise. ``user`` tells whose client it is. ``path`` is removed at the end.

    ``deadline``: when the next round begins even if no descriptor is ready (monotonic seconds).
    """

    def __init__(
        self,
        listening: socket.socket,
        take: Callable[[Client], None],
        bounds: Bounds = Bounds(),
        path: Path | None = None,
        user: Callable[[socket.socket], int] = one_user,
    ) -> None:
        self._listening = listening
        self._path = path
        self._take = take
        self._bounds = bounds
        self._user = user
        self._clients: dict[int, Client] = {}
        self._accounts: dict[int, Account] = {}
        self._accepts = 0.0  # when clients are accepted again
        self._others_turn = True
        self.deadline = inf

    def descriptors(self) -> Mapping[int, int]:
        """Begin a round: descriptors and the events to poll them for, root's first. Drops clients
        whose time is over. No events: the loop only hears when the client leaves."""
        now = time.monotonic()
        self._others_turn = True
        for descriptor, client in list(self._clients.items()):
            if min(client.until, client.stalls) <= now:
                self._drop(descriptor)
        order = sorted(self._clients.items(), key=lambda item: item[1].uid != ROOT)
        waiting = {descriptor: self._wanted(client, now) for descriptor, client in order}
        accepts = {self._listening.fileno(): select.POLLIN} if self._accepts <= now else {}
        times = [self._accepts]
        for _, one in order:
            times += [one.until, one.stalls, one.account.due]
        self.deadline = min((when for when in times if when > now), default=inf)
        return {**accepts, **waiting}

    def ready(self, descriptor: int) -> bool:
        """Serve one descriptor that poll reported; False: it is none of this server."""
        if descriptor == self._listening.fileno():
            self._accept()
        elif client := self._clients.get(descriptor):
            # Asked again: since the poll another client of this user may have been answered.
            wanted = self._wanted(client, time.monotonic())
            seen = _events(client.socket, wanted)
            if seen & _GONE or (seen & wanted and not self._step(client)):
                self._drop(descriptor)
        else:
            return False
        return True

    def is_wanted(self, client: Client) -> bool:
        """Whether the client is still there to take an answer."""
        return not client.is_gone and not _events(client.socket, 0) & _GONE

    @contextmanager
    def charged(self, client: Client) -> Iterator[None]:
        """The time of this block is of the share of the client's user."""
        begun = time.monotonic()
        yield
        now = time.monotonic()
        rest = (now - begun) * (1 / self._bounds.share - 1)
        client.account.due = max(client.account.due, now + rest)

    def answer(self, client: Client, data: bytes) -> None:
        """Give a client that ``is_pending`` its answer; nothing happens where it is gone."""
        client.is_pending = False
        self._give(client, data)

    def close(self) -> None:
        """Drop all clients and stop listening."""
        for descriptor in list(self._clients):
            self._drop(descriptor)
        self._listening.close()
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()

    def _wanted(self, client: Client, now: float) -> int:
        if client.outgoing:
            return select.POLLOUT
        if client.is_pending or not client.account.is_due(now, self._bounds):
            return 0
        return select.POLLIN if client.is_partial else select.POLLOUT

    def _step(self, client: Client) -> bool:
        """One step for a client; False: it is to be dropped."""
        if client.outgoing:
            return self._send(client)
        return self._receive(client) if client.is_partial else self._serve(client)

    def _accept(self) -> None:
        """Accept all that wait, up to a bound: those who only connect keep nobody else out."""
        now = time.monotonic()
        for _ in range(BACKLOG):
            try:
                accepted, _ = self._listening.accept()
            except BlockingIOError:
                return
            except OSError:
                break
            self._admit(accepted, now)
        self._accepts = now + _ACCEPT_PAUSE

    def _admit(self, accepted: socket.socket, now: float) -> None:
        accepted.setblocking(False)
        uid = self._user(accepted)
        self._accounts = {
            user: one for user, one in self._accounts.items() if one.clients or one.due > now
        }
        account = Account() if uid == ROOT else self._accounts.setdefault(uid, Account())
        client = Client(accepted, uid, account, now + self._bounds.seconds)
        self._make_room(client)
        account.clients.append(client)
        self._clients[accepted.fileno()] = client

    def _make_room(self, client: Client) -> None:
        """Drop a client of the same user where it has too many, else one of the busiest user."""
        clients = self._clients.values()
        rivals = [one for one in clients if one.uid == client.uid]
        if len(rivals) < self._bounds.of_user:
            others = sum(one.uid != ROOT for one in clients)
            if client.uid == ROOT or others < self._bounds.clients:
                return
            rivals = max((one.clients for one in self._accounts.values()), key=len)
        self._drop(_idlest(rivals).socket.fileno())

    def _receive(self, client: Client) -> bool:
        try:
            data = client.socket.recv(self._bounds.bytes + 1 - len(client.incoming))
        except BlockingIOError:
            return True
        except OSError:
            return False
        client.incoming += data
        client.is_partial = False
        return bool(data) and self._serve(client)

    def _serve(self, client: Client) -> bool:
        """Have one request answered, if it is whole and the client's turn."""
        if client.uid != ROOT and not self._others_turn:
            return True
        with self.charged(client):
            self._take(client)
        client.is_partial = not (client.outgoing or client.is_pending)
        if client.is_partial:
            return len(client.incoming) <= self._bounds.bytes
        self._others_turn = self._others_turn and client.uid == ROOT
        self._clients[client.socket.fileno()] = self._clients.pop(client.socket.fileno())
        client.account.due = max(client.account.due, time.monotonic() + 1 / self._bounds.rate)
        self._give(client, b"")
        return True

    def _give(self, client: Client, data: bytes) -> None:
        client.outgoing += data
        client.stalls = time.monotonic() + self._bounds.stalled if client.outgoing else inf

    def _send(self, client: Client) -> bool:
        """Send what the kernel takes. False: drop the client."""
        try:
            sent = client.socket.send(client.outgoing)
        except BlockingIOError:
            return True
        except OSError:
            return False
        client.outgoing = client.outgoing[sent:]
        self._give(client, b"")
        return bool(client.outgoing) or not client.is_last

    def _drop(self, descriptor: int) -> None:
        client = self._clients.pop(descriptor)
        client.account.clients.remove(client)
        client.is_gone = True
        client.incoming = client.outgoing = b""
        client.socket.close()


def _idlest(clients: Iterable[Client]) -> Client:
    """One that has left, else one that asks nothing, else the one served longest ago."""

    def rank(one: Client) -> int:
        seen = _events(one.socket, select.POLLIN)
        is_asking = one.is_pending or one.outgoing or one.incoming or seen & select.POLLIN
        return 0 if seen & _GONE else 1 + bool(is_asking)

    return min(clients, key=rank)


def _events(connection: socket.socket, wanted: int) -> int:
    poll = select.poll()
    poll.register(connection, wanted)
    return next((seen for _, seen in poll.poll(0)), 0)
