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
from click.testing import CliRunner

from vllmwall.api.commands import COMMANDS
from vllmwall.api.errors import ControlError
from vllmwall.api.server import allowed
from vllmwall.cli import command, terminal
from vllmwall.linux.wire import Fit, decode


@dataclass
class Daemon:
    """Speaks the control protocol as the real server does; remembers what it was asked.

    It knows the rows of the table of commands and no other, and checks access as the server does.
    """

    path: Path
    replies: dict[str, Mapping[str, object]] = field(default_factory=dict)
    asked: list[dict[str, object]] = field(default_factory=list)

    def answers(self, command: str, result: Mapping[str, object]) -> None:
        """Answer ``command`` with ``result``, which must be an answer of that command."""
        decode(COMMANDS[command].answer_type, result, Fit.REQUEST)
        self.replies[command] = {"result": result}

    def refuses(self, command: str, code: str, message: str, hint: str = "") -> None:
        """Answer ``command`` with an error."""
        self.replies[COMMANDS[command].name] = ControlError(code, message, hint).as_json()

    def _reply(self, line: bytes) -> Mapping[str, object]:
        try:
            command, _ = allowed(line, os.getpid(), os.geteuid())
        except ControlError as error:
            return error.as_json()
        self.asked.append(json.loads(line))
        return self.replies[command.name]

    def serve(self, listening: socket.socket) -> None:
        """Answer until the socket is closed."""
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            with client, client.makefile("rwb") as stream:
                stream.write(json.dumps(self._reply(stream.readline())).encode() + b"\n")


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
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``vllmwall ARGUMENTS`` in this process, against the fixture's socket.

    ``width`` is that of the pipe that it writes to; other keywords are environment variables.
    """

    def call(
        *arguments: str, width: int = 200, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(terminal, "PIPED_WIDTH", width)
        env = {"VLLMWALL_SOCKET": str(tmp_path / "control.sock"), **variables}
        done = CliRunner().invoke(command, arguments, prog_name="vllmwall", env=env)
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    return call


@pytest.fixture
def process(tmp_path: Path) -> Run:
    """Run ``vllmwall ARGUMENTS`` as a process of its own, against the fixture's socket."""

    def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        path = str(tmp_path / "control.sock")
        return subprocess.run(
            [sys.executable, "-m", "vllmwall", *arguments],
            env={**os.environ, "VLLMWALL_SOCKET": path, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return call
