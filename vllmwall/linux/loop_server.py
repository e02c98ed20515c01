"""A socket server for a poll loop: bounded in clients, bytes and time, and it waits for none.

The loop polls `descriptors` and passes each ready one to `ready`. Every call does one step for one
client: it accepts it, reads from it, has one request answered, or sends. So many requests of one
client take turns with everything else that the loop does.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path

BACKLOG = 32


@dataclass
class Client:
    """One client. ``until`` is when it is dropped (monotonic seconds).

    While ``is_pending`` its answer is being made elsewhere; ``is_gone`` when it has left or was
    dropped. With ``is_last`` the connection ends when everything has been sent.
    """

    socket: socket.socket
    until: float = inf
    incoming: bytes = b""
    outgoing: bytes = b""
    is_pending: bool = False
    is_last: bool = False
    is_gone: bool = False


@dataclass(frozen=True)
class Bounds:
    """How many clients at most, bytes of what one has sent and is not answered, and seconds."""

    clients: int = BACKLOG
    bytes: int = 64 * 1024
    seconds: float = inf


class LoopServer:
    """Serves ``listening``. ``take`` gets a client with new input and takes one request from its
    ``incoming``; it sets ``outgoing`` or ``is_pending``, or neither where the request is not
    complete. It must not raise. ``path`` is removed at the end."""

    def __init__(
        self,
        listening: socket.socket,
        take: Callable[[Client], None],
        bounds: Bounds = Bounds(),
        path: Path | None = None,
    ) -> None:
        self._listening = listening
        self._path = path
        self._take = take
        self._bounds = bounds
        self._clients: dict[int, Client] = {}

    def descriptors(self) -> Mapping[int, int]:
        """Descriptors and the events to poll them for; drops clients whose time is over."""
        now = time.monotonic()
        for descriptor, client in list(self._clients.items()):
            if client.until < now:
                self._drop(descriptor)
        waiting = {
            descriptor: select.POLLOUT if client.outgoing else select.POLLIN
            for descriptor, client in self._clients.items()
        }
        return {self._listening.fileno(): select.POLLIN, **waiting}

    def ready(self, descriptor: int) -> bool:
        """Serve one descriptor that poll reported; False: it is none of this server."""
        if descriptor == self._listening.fileno():
            self._accept()
        elif client := self._clients.get(descriptor):
            if not (self._send(client) if client.outgoing else self._receive(client)):
                self._drop(descriptor)
        else:
            return False
        return True

    def answer(self, client: Client, data: bytes) -> None:
        """Give a client that ``is_pending`` its answer; nothing happens where it is gone."""
        client.is_pending = False
        client.outgoing += data

    def close(self) -> None:
        """Drop all clients and stop listening."""
        for descriptor in list(self._clients):
            self._drop(descriptor)
        self._listening.close()
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()

    def _accept(self) -> None:
        with suppress(OSError):
            accepted, _ = self._listening.accept()
            accepted.setblocking(False)
            if len(self._clients) >= self._bounds.clients:  # the oldest is idle or stuck
                self._drop(next(iter(self._clients)))
            until = time.monotonic() + self._bounds.seconds
            self._clients[accepted.fileno()] = Client(accepted, until)

    def _receive(self, client: Client) -> bool:
        """Read what there is and have a request answered; False: the client is to be dropped."""
        try:
            data = client.socket.recv(self._bounds.bytes)
        except BlockingIOError:
            return True
        except OSError:
            return False
        client.incoming += data
        if not data or len(client.incoming) > self._bounds.bytes:
            return False
        if not client.is_pending:
            self._take(client)
        return True

    def _send(self, client: Client) -> bool:
        """Send what the kernel takes; then the next request has its turn. False: drop it."""
        try:
            client.outgoing = client.outgoing[client.socket.send(client.outgoing) :]
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not client.outgoing and not client.is_last and client.incoming:
            self._take(client)
        return bool(client.outgoing) or not client.is_last

    def _drop(self, descriptor: int) -> None:
        client = self._clients.pop(descriptor)
        client.is_gone = True
        client.socket.close()


def listen_unix(path: Path, group: int | None) -> socket.socket:
    """A listening unix socket for root, and for ``group`` where one is given. Raises OSError.

    It is bound under another name and renamed: no client can connect before its mode is right. It
    replaces another socket, but no other file.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"{path} exists and is no socket")
    unready = path.with_name(f"{path.name}.new")
    unready.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    umask = os.umask(0o177 if group is None else 0o117)
    try:
        listening.bind(os.fspath(unready))
        if group is not None:
            os.chown(unready, -1, group, follow_symlinks=False)
        listening.listen(BACKLOG)
        unready.rename(path)
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(umask)
    return listening


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket at an address of this host. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
