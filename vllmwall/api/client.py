"""The client of the control socket: one JSON object a line each way.

Imports nothing heavy: `vllmwall status` lives on its start-up time.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path

from vllmwall.api.commands import COMMANDS
from vllmwall.api.errors import ControlError, Json
from vllmwall.linux.places import CONTROL_SOCKET

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_TIMEVAL = struct.Struct("2l")


def request(
    command: str,
    arguments: Json | None = None,
    socket_path: Path = CONTROL_SOCKET,
    timeout: float = 30.0,
) -> dict[str, object]:
    """Ask the daemon and return its answer. Raises ControlError; ``timeout`` is in seconds.

    ``command`` is the name of a row of `COMMANDS`; another one is a KeyError.
    """
    line = json.dumps({"command": COMMANDS[command].name, **(arguments or {})}).encode() + b"\n"
    try:
        reply = json.loads(_exchanged(line, socket_path, timeout) or b"null")
    except PermissionError as error:
        hint = "Run the command as root or as a member of the group vllmwall."
        raise ControlError("denied", f"{socket_path}: permission denied", hint) from error
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise ControlError("not-running", f"no daemon answers at {socket_path}") from error
    except (OSError, ValueError) as error:
        message = f"the daemon at {socket_path} gave no answer: {error}"
        raise ControlError("failed", message) from error
    return _result(reply, socket_path)


def listening_pid(socket_path: Path) -> int:
    """The process that listens there, by the kernel's word; 0: none does, or not for us."""
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        connection.connect(os.fspath(socket_path))
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(found)[0])
    return 0


def _exchanged(line: bytes, socket_path: Path, timeout: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        # Where the queue is full, a connect with a timeout of Python's fails at once (EAGAIN).
        limit = _TIMEVAL.pack(int(timeout), int(timeout % 1 * 1e6))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        connection.connect(os.fspath(socket_path))
        connection.settimeout(timeout)
        connection.sendall(line)
        with connection.makefile("rb") as answer:
            return answer.readline()


def _result(reply: object, socket_path: Path) -> dict[str, object]:
    if not isinstance(reply, dict):
        raise ControlError("failed", f"the daemon at {socket_path} closed the connection")
    error, result = reply.get("error"), reply.get("result")
    if isinstance(error, dict):
        parts = [str(error.get(key, "")) for key in ("code", "message", "hint")]
        raise ControlError(*parts)
    if not isinstance(result, dict):
        hint = "Restart the daemon: it may be of another version."
        message = f"the daemon at {socket_path} gave an answer without a result"
        raise ControlError("failed", message, hint)
    return result
