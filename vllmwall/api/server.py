"""The control socket's server: reads requests, checks access and sends the answers.

One JSON object a line each way, over a unix stream socket: ``{"command": NAME, …}``, then
``{"result": …}`` or ``{"error": {"code", "message", "hint"}}``. The kernel reports the asking
process (SO_PEERCRED): every client that may open the socket may read, only root may change.
A request of a client that has left before its turn is dropped.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from vllmwall.api.commands import COMMANDS, Access, Command
from vllmwall.api.errors import ControlError, Json
from vllmwall.api.later import Later
from vllmwall.enforce.backend import EnforceError
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.state import State
from vllmwall.linux.listening import listen_unix
from vllmwall.linux.loop_server import Bounds, Client, LoopServer, unix_user
from vllmwall.linux.wire import Fit, decode, encode

_BOUNDS = Bounds(clients=32, of_user=16, rate=20.0, share=0.25)
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


Answer = Callable[[Command[object, object], object], object]
_Result = TypeVar("_Result")


class ControlServer:
    """Answers clients from the daemon's loop, which polls its `descriptors`.

    ``answer(command, request)`` returns the answer, or `Later`, or raises ControlError.
    """

    def __init__(self, path: Path, answer: Answer, group: str = "") -> None:
        self._answer = answer
        listening = listen_unix(path, group_id(group))
        self._server = LoopServer(listening, self._take, _BOUNDS, path, unix_user)
        self.descriptors = self._server.descriptors
        self.ready = self._server.ready
        self.close = self._server.close

    @property
    def deadline(self) -> float:
        """When the loop has to ask for the `descriptors` again (monotonic seconds)."""
        return self._server.deadline

    def _take(self, client: Client) -> None:
        line, newline, rest = client.incoming.partition(b"\n")
        if not newline:
            return
        client.incoming = rest
        try:
            found = self._answer(*allowed(line, *_peer(client.socket)))
        except ControlError as error:
            client.outgoing = _line(error.as_json())
            return
        if isinstance(found, Later):
            client.is_pending = True
            found.attach(partial(self._deliver, client), partial(self._server.is_wanted, client))
        else:
            client.outgoing = _line({"result": encode(found)})

    def _deliver(self, client: Client, work: Callable[[], object]) -> None:
        with self._server.charged(client):
            reply = _reply(work)
        self._server.answer(client, reply)


def _peer(connection: socket.socket) -> tuple[int, int]:
    """The process and user at the other end, as the kernel reports them."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(found)
    return pid, uid


def _reply(work: Callable[[], object]) -> bytes:
    try:
        return _line({"result": encode(work())})
    except ControlError as error:
        return _line(error.as_json())


def _line(reply: Json) -> bytes:
    return json.dumps(reply).encode() + b"\n"


def allowed(line: bytes, pid: int, uid: int) -> tuple[Command[object, object], object]:
    """The command and the request in a line. Raises ControlError where this user may not ask."""
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
    try:
        return command, decode(command.request_type, asked, Fit.REQUEST)
    except ValueError as error:
        raise ControlError("bad-request", str(error)) from error


def answered(state: State, command: Command[object, object], request: object) -> object:
    """What a command's handler answers. Raises ControlError: a command must not end the daemon."""
    found = _guarded(state, command, lambda: command.load()(state, request))
    if isinstance(found, Later):
        found.guard = lambda work: _guarded(state, command, work)
    return found


def _guarded(
    state: State, command: Command[object, object], work: Callable[[], _Result]
) -> _Result:
    try:
        return work()
    except ControlError:
        raise
    except (OSError, EnforceError) as error:
        raise ControlError("failed", f"{command.name}: {error}") from error
    except Exception as error:
        state.log(EventKey.REQUEST_FAILED, command=command.name, exc_info=True)
        message = f"{command.name}: internal error: {error!r}"
        raise ControlError("failed", message) from error


def group_id(name: str) -> int | None:
    """The number of a group; None: there is none of that name."""
    import grp

    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None
