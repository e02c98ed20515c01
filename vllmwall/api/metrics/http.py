"""The smallest HTTP server that Prometheus needs: GET /metrics, answered from the daemon's loop.

It never waits for anybody. A client has five seconds and 8 KiB for its request, there are sixteen
clients at most, the oldest goes when another comes, and each gets one answer.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CLIENTS = 16
_REQUEST_LIMIT = 8192
_SECONDS = 5.0
_NOT_READING = frozenset({"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"})


@dataclass
class _Client:
    socket: socket.socket
    until: float
    incoming: bytes = b""
    outgoing: bytes = b""


class ScrapeServer:
    """Serves ``page()`` on ``listening``; the loop polls `reading` and `writing`."""

    def __init__(
        self, listening: socket.socket, page: Callable[[], bytes], content_type: str
    ) -> None:
        self._listening = listening
        self._page = page
        self._content_type = content_type
        self._clients: dict[int, _Client] = {}

    @property
    def reading(self) -> list[int]:
        """Descriptors to poll for input."""
        self._drop_late()
        waiting = [fd for fd, client in self._clients.items() if not client.outgoing]
        return [self._listening.fileno(), *waiting]

    @property
    def writing(self) -> list[int]:
        """Descriptors to poll for output."""
        return [fd for fd, client in self._clients.items() if client.outgoing]

    def ready(self, descriptor: int) -> bool:
        """Serve one descriptor that poll reported; False: it is none of ours."""
        if descriptor == self._listening.fileno():
            self._accept()
        elif client := self._clients.get(descriptor):
            self._serve(client)
        else:
            return False
        return True

    def close(self) -> None:
        """Drop all clients and stop listening. A unix socket's path goes too."""
        for descriptor in list(self._clients):
            self._drop(descriptor)
        name = self._listening.getsockname()
        self._listening.close()
        if isinstance(name, str) and name:
            with suppress(OSError):
                Path(name).unlink()

    def _accept(self) -> None:
        with suppress(OSError):
            accepted, _ = self._listening.accept()
            accepted.setblocking(False)
            if len(self._clients) >= _CLIENTS:
                self._drop(next(iter(self._clients)))
            client = _Client(accepted, time.monotonic() + _SECONDS)
            self._clients[accepted.fileno()] = client

    def _serve(self, client: _Client) -> None:
        try:
            if client.outgoing:
                client.outgoing = client.outgoing[client.socket.send(client.outgoing) :]
                if not client.outgoing:
                    self._drop(client.socket.fileno())
                return
            data = client.socket.recv(_REQUEST_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.incoming += data
        if not data or len(client.incoming) > _REQUEST_LIMIT:
            self._drop(client.socket.fileno())
        elif b"\r\n\r\n" in client.incoming or b"\n\n" in client.incoming:
            client.outgoing = self._answer(client.incoming)

    def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b"\n")[0].decode("latin-1").partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            known = method in _NOT_READING
            return _response("405 Method Not Allowed" if known else "400 Bad Request")
        if path == "/":
            return _response("200 OK", b"vllmwall: see /metrics\n")
        if path != "/metrics":
            return _response("404 Not Found", b"see /metrics\n")
        try:
            page = self._page()
        except Exception as error:  # a scrape must not end the daemon
            return _response("500 Internal Server Error", f"{error!r}\n".encode())
        return _response("200 OK", page, self._content_type, head=method == "HEAD")

    def _drop_late(self) -> None:
        now = time.monotonic()
        for descriptor, client in list(self._clients.items()):
            if client.until < now:
                self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        client = self._clients.pop(descriptor, None)
        if client is not None:
            client.socket.close()


def listening_on(where: str, group: int | None) -> socket.socket:
    """A listening socket at ``HOST:PORT`` or ``unix:PATH``. Raises OSError.

    The unix socket is for root and ``group``. What is no socket in its place is left alone.
    """
    if where.startswith("unix:"):
        return _listening_at(Path(where.removeprefix("unix:")), group)
    host, _, port = where.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, int(port)))
        made.listen(_CLIENTS)
    except OSError:
        made.close()
        raise
    return made


def _listening_at(path: Path, group: int | None) -> socket.socket:
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    umask = os.umask(0o177)
    try:
        made.bind(os.fspath(path))
        if group is not None:
            os.chown(path, -1, group, follow_symlinks=False)
            path.chmod(0o660)
        made.listen(_CLIENTS)
    except OSError:
        made.close()
        raise
    finally:
        os.umask(umask)
    return made


def _response(
    status: str, body: bytes = b"", content_type: str = "text/plain", *, head: bool = False
) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}"]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + (b"" if head else body)
