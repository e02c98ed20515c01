"""An echo server in a thread, on a socket that was bound in some host of the lab."""

from __future__ import annotations

import selectors
import socket
import threading

_IP_PKTINFO = 8  # linux/in.h; Python's socket module has no name for it


class Echo:
    """Sends back what it gets, over TCP or UDP, until it is closed. Owns the socket."""

    def __init__(self, bound: socket.socket) -> None:
        self._bound = bound
        self._stop, self._stopped = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stopped, selectors.EVENT_READ)
        self._selector.register(bound, selectors.EVENT_READ)
        bound.setblocking(False)
        if bound.type == socket.SOCK_STREAM:
            bound.listen()
        else:
            _ask_for_destination(bound)
        self._thread = threading.Thread(target=self._run, name="echo", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and close the socket and its connections."""
        if self._thread.is_alive():
            self._stop.send(b"x")
            self._thread.join()
        self._stop.close()

    def _run(self) -> None:
        while not any(self._serve(key.fileobj) for key, _ in self._selector.select()):
            pass
        for key in list(self._selector.get_map().values()):
            _as_socket(key.fileobj).close()
        self._selector.close()

    def _serve(self, ready: object) -> bool:
        """Answer one ready socket. True when it is time to stop."""
        if ready is self._stopped:
            return True
        sock = _as_socket(ready)
        try:
            if sock.type == socket.SOCK_DGRAM:
                _echo_datagram(sock)
            elif sock is self._bound:
                self._selector.register(sock.accept()[0], selectors.EVENT_READ)
            else:
                self._echo_stream(sock)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(sock)
        return False

    def _echo_stream(self, connection: socket.socket) -> None:
        data = connection.recv(65536)
        if not data:
            raise ConnectionResetError
        connection.sendall(data)

    def _drop(self, sock: socket.socket) -> None:
        if sock is not self._bound:
            self._selector.unregister(sock)
            sock.close()


def _as_socket(value: object) -> socket.socket:
    assert isinstance(value, socket.socket)
    return value


def _ask_for_destination(sock: socket.socket) -> None:
    """Have each datagram say which of our addresses it came to."""
    sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)


def _echo_datagram(sock: socket.socket) -> None:
    """Answer from the address that was asked: the packet information goes back as it came."""
    data, information, _, source = sock.recvmsg(65536, 128)
    sock.sendmsg([data], information, 0, source)
