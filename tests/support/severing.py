"""Connections held in a test's own hands, and what became of them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack

from tests.support.lab import Host
from tests.support.waiting import PATIENCE
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.enforce.sever import Severed, sever
from vllmwall.model import Wall

Dial = Callable[..., socket.socket]


class Door:
    """A listening socket whose connections the test holds itself."""

    def __init__(self, host: Host, address: str, port: int, stack: ExitStack) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listening = stack.enter_context(host.open_socket(family, socket.SOCK_STREAM))
        self.listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listening.settimeout(PATIENCE)
        self.listening.bind((address, port))
        self.listening.listen()
        self._stack = stack

    def accept(self) -> socket.socket:
        """The server's end of the next connection."""
        return self._stack.enter_context(self.listening.accept()[0])


def dialled(
    held: ExitStack, host: Host, address: str, port: int, source: str | None = None
) -> socket.socket:
    """A connection to an echo, closed with the stack."""
    made = held.enter_context(host.dial(address, port, source=source, timeout=PATIENCE))
    assert lives(made)
    return made


def lives(connection: socket.socket) -> bool:
    """Whether what is sent comes back from the echo at the other end."""
    connection.settimeout(PATIENCE)
    try:
        connection.sendall(b"hello")
        return connection.recv(64) == b"hello"
    except ConnectionError:
        return False


def ending(connection: socket.socket) -> int | None:
    """The error by which a connection ended; None: it ended well."""
    connection.settimeout(PATIENCE)
    try:
        assert b"" == connection.recv(64)
    except OSError as error:
        return error.errno
    return None


def apply_to(backend: Nftables, host: Host, wanted: Wall) -> Severed:
    """Apply a wall, then sever."""
    backend.apply(host.path, wanted, None)
    return sever(host.path, wanted)


def ends(severed: Severed) -> set[tuple[str, int]]:
    """Whose connections were reset."""
    return {(str(one.remote), one.remote_port) for one in severed.connections}
