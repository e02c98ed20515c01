"""The control socket's server: reads requests, checks access and sends the answers.

One JSON object a line each way, over a unix stream socket: ``{"command": NAME, …}``, then
``{"result": …}`` or ``{"error": {"code", "message", "hint"}}``. The kernel reports the asking
process (SO_PEERCRED): every client that may open the socket may read, only root may change.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vllmwall.api.commands import COMMANDS, Access, Command
from vllmwall.api.errors import ControlError, Json
from vllmwall.enforce.backend import EnforceError
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.state import State

_REQUEST_LIMIT = 64 * 1024
_CONNECTIONS = 32
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


@dataclass
class _Connection:
    """One client: what it has sent so far and what it has yet to receive."""

    socket: socket.socket
    pid: int
    uid: int
    incoming: bytes = b""
    outgoing: bytes = field(default=b"", repr=False)


Answer = Callable[[Command, Json], Json]


class ControlServer:
    """Answers clients without ever waiting for one; the daemon's loop polls its descriptors.

    ``answer(command, arguments)`` returns the result or raises ControlError.
    """

    def __init__(self, path: Path, answer: Answer, group: str = "") -> None:
        self._path = path
        self._answer = answer
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
            connection.outgoing += self._reply(line, connection)

    def _reply(self, line: bytes, asker: _Connection) -> bytes:
        try:
            command, arguments = allowed(line, asker.pid, asker.uid)
            reply: Json = {"result": self._answer(command, arguments)}
        except ControlError as error:
            reply = error.as_json()
        return json.dumps(reply).encode() + b"\n"

    def _drop(self, descriptor: int) -> None:
        connection = self._connections.pop(descriptor, None)
        if connection is not None:
            connection.socket.close()


def allowed(line: bytes, pid: int, uid: int) -> tuple[Command, Json]:
    """The command and arguments of a request. Raises ControlError where this user may not ask."""
    try:
        asked = json.loads(line)
        name = asked.pop("command")
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ControlError("bad-request", "not a JSON object with a command") from error
    command = COMMANDS.get(name) if isinstance(name, str) else None
    if command is None:
        raise ControlError("bad-request", f"unknown command {str(name)[:40]!r}")
    if command.access is Access.ROOT and uid not in (0, os.geteuid()):
        raise ControlError("denied", f"{name} needs root")
    if command.about_asker:
        asked["pid"] = pid
    return command, asked


def answered(state: State, command: Command, arguments: Json) -> Json:
    """What a command's handler answers. Raises ControlError: a command must not end the daemon."""
    try:
        return command.load()(state, arguments)
    except ControlError:
        raise
    except (OSError, EnforceError) as error:
        raise ControlError("failed", f"{command.name}: {error}") from error
    except Exception as error:
        state.log(EventKey.REQUEST_FAILED, command=command.name, exc_info=True)
        message = f"{command.name}: internal error: {error!r}"
        raise ControlError("failed", message) from error


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
