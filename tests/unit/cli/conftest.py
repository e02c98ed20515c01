"""A control socket that answers from a table, and the command line run as a person runs it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vllmwall.api.server import CHANGING, READING


@dataclass
class Daemon:
    """Speaks the control protocol; remembers what it was asked."""

    path: Path
    replies: dict[str, Mapping[str, object]] = field(default_factory=dict)
    asked: list[dict[str, object]] = field(default_factory=list)

    def answers(self, command: str, result: Mapping[str, object]) -> None:
        """Answer ``command`` with ``result``."""
        self.replies[command] = {"ok": True, "result": result}

    def refuses(self, command: str, code: str, error: str) -> None:
        """Answer ``command`` with an error."""
        self.replies[command] = {"ok": False, "code": code, "error": error}

    def serve(self, listening: socket.socket) -> None:
        """Answer until the socket is closed."""
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            with client, client.makefile("rwb") as stream:
                asked = json.loads(stream.readline())
                self.asked.append(asked)
                stream.write(json.dumps(self._reply(asked["command"])).encode() + b"\n")

    def _reply(self, command: str) -> Mapping[str, object]:
        """As the real server: a command that no table has is refused, whatever a test wishes."""
        if command not in READING | CHANGING:
            return {"ok": False, "code": "bad-request", "error": f"unknown command {command!r}"}
        return self.replies[command]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon's control socket, without the daemon behind it."""
    found = Daemon(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(found.path))
        listening.listen()
        thread = threading.Thread(target=found.serve, args=(listening,))
        thread.start()
        yield found
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``vllmwall ARGUMENTS`` against the fixture's socket."""

    def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        path = str(tmp_path / "control.sock")
        return subprocess.run(
            [sys.executable, "-m", "vllmwall", *arguments],
            env={**os.environ, "VLLMWALL_SOCKET": path, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    return call
