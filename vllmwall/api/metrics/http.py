"""The smallest HTTP server that Prometheus needs: GET /metrics, answered from the daemon's loop.

A client has five seconds and 8 KiB for its request and gets one answer. There are sixteen clients
at most; the oldest is dropped when another one comes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vllmwall.linux.listening import listen_tcp, listen_unix
from vllmwall.linux.loop_server import Bounds, Client, LoopServer

_BOUNDS = Bounds(clients=16, of_user=16, bytes=8192, seconds=5.0)
_NOT_READING = frozenset({"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"})


def metrics_server(
    where: str, group: int | None, page: Callable[[], bytes], content_type: str
) -> LoopServer:
    """Serve ``page()`` at ``HOST:PORT``, or at ``unix:PATH`` for root and ``group``.

    Raises OSError.
    """

    def take(client: Client) -> None:
        if b"\r\n\r\n" in client.incoming or b"\n\n" in client.incoming:
            client.outgoing = _answer(client.incoming, page, content_type)
            client.is_last = True

    if where.startswith("unix:"):
        path = Path(where.removeprefix("unix:"))
        return LoopServer(listen_unix(path, group), take, _BOUNDS, path)
    host, _, port = where.rpartition(":")
    return LoopServer(listen_tcp(host.strip("[]"), int(port)), take, _BOUNDS)


def _answer(request: bytes, page: Callable[[], bytes], content_type: str) -> bytes:
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
        text = page()
    except Exception as error:  # a scrape must not end the daemon
        return _response("500 Internal Server Error", f"{error!r}\n".encode())
    return _response("200 OK", text, content_type, head=method == "HEAD")


def _response(
    status: str, body: bytes = b"", content_type: str = "text/plain", *, head: bool = False
) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}"]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + (b"" if head else body)
