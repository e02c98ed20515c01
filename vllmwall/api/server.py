"""The control socket: how the command line asks the daemon, and how the daemon answers.

One JSON object a line each way, over a unix stream socket. The kernel says who asks
(SO_PEERCRED): whoever may open the socket (root and the control group) may read, only root may
change. The client half imports nothing heavy: `vllmwall status` lives on its start-up time.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_SOCKET = Path("/run/vllmwall/control.sock")
READING = frozenset(
    {
        "status",
        "plan",
        "peers.list",
        "snapshot",
        "guard",
        "events",
        "blocked",
        "connections",
        "learn",
        "bans.list",
        "explain",
    }
)
ABOUT_ASKER = frozenset({"guard"})  # the kernel's word on who asks becomes the argument ``pid``
CHANGING = frozenset(
    {
        "reload",
        "up",
        "down",
        "peers.add",
        "peers.remove",
        "confirm",
        "rollback",
        "bans.add",
        "bans.remove",
    }
)

_REQUEST_LIMIT = 64 * 1024
_CONNECTIONS = 32
_CREDENTIALS = struct.Struct("3i")

Json = Mapping[str, object]


class ControlError(Exception):
    """A request that did not succeed.

    ``code``: ``not-running`` (no daemon behind the socket), ``denied``, ``bad-request``,
    ``failed`` (the daemon tried and says why).
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def request(
    command: str,
    arguments: Json | None = None,
    socket_path: Path = DEFAULT_SOCKET,
    timeout: float = 30.0,
) -> dict[str, object]:
    """Ask the daemon and return its answer. Raises ControlError; ``timeout`` is in seconds."""
    line = json.dumps({"command": command, **(arguments or {})}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(os.fspath(socket_path))
            connection.sendall(line)
            with connection.makefile("rb") as answer:
                reply = json.loads(answer.readline() or b"null")
    except PermissionError as error:
        raise ControlError(
            "denied", f"{socket_path}: permission denied; ask as root or join group vllmwall"
        ) from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise ControlError("not-running", f"no daemon answers at {socket_path}") from error
    except (OSError, ValueError) as error:
        raise ControlError(
            "failed", f"the daemon at {socket_path} gave no answer: {error}"
        ) from error
    if not isinstance(reply, dict):
        raise ControlError("failed", f"the daemon at {socket_path} closed the connection")
    if not reply.get("ok"):
        raise ControlError(str(reply.get("code", "failed")), str(reply.get("error", "")))
    result = reply.get("result")
    return result if isinstance(result, dict) else {}


def listening_pid(socket_path: Path) -> int:
    """The process that listens there, by the kernel's word; 0: none does, or not for us."""
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        connection.connect(os.fspath(socket_path))
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(found)[0])
    return 0


@dataclass
class _Connection:
    """One client: what it has sent so far and what it has yet to receive."""

    socket: socket.socket
    pid: int
    uid: int
    incoming: bytes = b""
    outgoing: bytes = field(default=b"", repr=False)


Handler = Callable[[str, Json], Json]


class ControlServer:
    """Answers clients without ever waiting for one; the daemon's loop polls its descriptors.

    ``handler(command, arguments)`` returns the result or raises ControlError.
    """

    def __init__(self, path: Path, handler: Handler, group: str = "") -> None:
        self._path = path
        self._handler = handler
        self._connections: dict[int, _Connection] = {}
        self._listening = _listen(path, group)

    @property
    def reading(self) -> list[int]:
        """Descriptors to poll for input."""
        return [self._listening.fileno(), *self._connections]

    @property
    def writing(self) -> list[int]:
        """Descriptors to poll for output."""
        return [fd for fd, connection in self._connections.items() if connection.outgoing]

    def ready(self, descriptor: int) -> None:
        """Serve one descriptor that poll reported."""
        if descriptor == self._listening.fileno():
            self._accept()
        elif connection := self._connections.get(descriptor):
            self._serve(connection)

    def close(self) -> None:
        """Drop all clients and take the socket away."""
        for descriptor in list(self._connections):
            self._drop(descriptor)
        self._listening.close()
        with suppress(FileNotFoundError):
            self._path.unlink()

    def _accept(self) -> None:
        with suppress(OSError):
            accepted, _ = self._listening.accept()
            accepted.setblocking(False)
            credentials = accepted.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
            pid, uid, _ = _CREDENTIALS.unpack(credentials)
            if len(self._connections) >= _CONNECTIONS:  # the oldest is idle or stuck
                self._drop(next(iter(self._connections)))
            self._connections[accepted.fileno()] = _Connection(accepted, pid, uid)

    def _serve(self, connection: _Connection) -> None:
        try:
            if connection.outgoing:
                sent = connection.socket.send(connection.outgoing)
                connection.outgoing = connection.outgoing[sent:]
                return
            data = connection.socket.recv(_REQUEST_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        connection.incoming += data
        if not data or len(connection.incoming) > _REQUEST_LIMIT:
            self._drop(connection.socket.fileno())
            return
        while b"\n" in connection.incoming:
            line, _, connection.incoming = connection.incoming.partition(b"\n")
            connection.outgoing += self._answer(line, connection)

    def _answer(self, line: bytes, asker: _Connection) -> bytes:
        try:
            reply: Json = {"ok": True, "result": self._handle(line, asker)}
        except ControlError as error:
            reply = {"ok": False, "code": error.code, "error": str(error)}
        return json.dumps(reply).encode() + b"\n"

    def _handle(self, line: bytes, asker: _Connection) -> Json:
        try:
            asked = json.loads(line)
            command = asked.pop("command")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise ControlError("bad-request", "not a JSON object with a command") from error
        if not isinstance(command, str) or command not in READING | CHANGING:
            raise ControlError("bad-request", f"unknown command {str(command)[:40]!r}")
        if command in CHANGING and asker.uid not in (0, os.geteuid()):
            raise ControlError("denied", f"{command} needs root")
        if command in ABOUT_ASKER:
            asked["pid"] = asker.pid
        return self._handler(command, asked)

    def _drop(self, descriptor: int) -> None:
        connection = self._connections.pop(descriptor, None)
        if connection is not None:
            connection.socket.close()


def _listen(path: Path, group: str) -> socket.socket:
    """Bind under another name and rename: nobody meets the socket before its mode is right."""
    unready = path.with_suffix(".new")
    with suppress(FileNotFoundError):
        unready.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    umask = os.umask(0o177)
    try:
        listening.bind(os.fspath(unready))
    finally:
        os.umask(umask)
    if number := group_id(group):
        os.chown(unready, -1, number)
        unready.chmod(0o660)
    listening.listen(_CONNECTIONS)
    unready.rename(path)
    return listening


def group_id(name: str) -> int | None:
    """The number of a group; None: there is none of that name."""
    import grp

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
