"""The control socket, client and server, over a real unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.answers import as_json
from tests.support.serving import served
from tests.support.sharing import open_to_all_users
from vllmwall.api.client import request
from vllmwall.api.commands import Command
from vllmwall.api.errors import ControlError, Json
from vllmwall.api.server import ControlServer

NOBODY = 65534


def answer(command: Command[object, object], question: object) -> Json:
    """Repeats the question; ``plan`` fails."""
    if command.name == "plan":
        raise ControlError("failed", "no plan today", "Ask tomorrow.")
    return {"command": command.name, **as_json(question)}


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """The socket of a server."""
    found = tmp_path / "control.sock"
    with served(ControlServer(found, answer)):
        yield found


def raw(path: Path, text: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(path))
        client.sendall(text)
        return client.makefile("rb").readline()


def as_nobody(path: Path, command: str) -> str:
    """The code that another user gets for ``command``."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresuid(NOBODY, NOBODY, NOBODY)
        try:
            request(command, socket_path=path)
            os.write(write, b"ok")
        except ControlError as error:
            os.write(write, error.code.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with os.fdopen(read) as answer_of_child:
        return answer_of_child.read()


def test_a_question_is_answered(path: Path) -> None:
    """Arguments arrive, the result comes back."""
    arguments = {"after": 5, "epoch": "x", "most": 7}
    assert {"command": "events", **arguments} == request("events", arguments, path)


def test_arguments_that_the_daemon_does_not_know_are_refused(path: Path) -> None:
    """Ignoring one could skip a check that the client relies on; its values are checked too."""
    for arguments, words in (({"force": True}, "force: there is no"), ({"most": "7"}, "most: a")):
        with pytest.raises(ControlError, match=words) as caught:
            request("events", arguments, path)
        assert "bad-request" == caught.value.code


def test_a_ban_names_the_ssh_client(path: Path) -> None:
    """Without it the daemon could not spare it: `connections --ban` once forgot it."""
    with pytest.raises(ControlError, match="ssh_client: a value is needed"):
        request("bans.add", {"networks": ["203.0.113.9"]}, path)


def test_a_large_answer_arrives_whole(path: Path) -> None:
    """A node with thousands of listeners does not fit one send()."""
    big = "x" * 60_000
    connection_answers = [request("events", {"epoch": big}, path) for _ in range(3)]
    assert [big] * 3 == [one["epoch"] for one in connection_answers]


def test_a_failure_carries_its_code_and_words(path: Path) -> None:
    """What the daemon says reaches the person who asked."""
    with pytest.raises(ControlError, match="no plan today") as caught:
        request("plan", socket_path=path)
    error = caught.value
    assert ("failed", "no plan today", "Ask tomorrow.") == (error.code, error.message, error.hint)
    assert "no plan today\nAsk tomorrow." == str(error)


def test_the_client_asks_only_for_what_the_table_knows(path: Path) -> None:
    """A misspelt command is a fault of ours and never reaches a daemon."""
    with pytest.raises(KeyError):
        request("ban", {"networks": ["203.0.113.9"]}, path)


@pytest.mark.parametrize("line", [b"{}\n", b"[]\n", b"5\n", b"nonsense\n", b'{"command":"rm"}\n'])
def test_nonsense_is_refused_and_the_server_lives(path: Path, line: bytes) -> None:
    """A bad client costs nobody else anything."""
    assert "bad-request" == json.loads(raw(path, line))["error"]["code"]
    assert request("status", socket_path=path)


def test_an_endless_question_is_cut_off(path: Path) -> None:
    """Memory of the daemon is not the client's."""
    try:
        assert b"" == raw(path, b"x" * 200_000)
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert request("status", socket_path=path)


def test_a_silent_client_keeps_nobody_waiting(path: Path) -> None:
    """The loop never waits for one client."""
    silent = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    try:
        for client in silent:
            client.connect(str(path))
        assert request("status", socket_path=path, timeout=5)
    finally:
        for client in silent:
            client.close()


def test_without_a_daemon_the_error_says_so(tmp_path: Path) -> None:
    """``not-running`` is its own exit code for scripts."""
    with pytest.raises(ControlError, match="no daemon answers") as caught:
        request("status", socket_path=tmp_path / "none.sock")
    assert "not-running" == caught.value.code


def test_a_stranger_cannot_open_the_socket(path: Path) -> None:
    """Without the control group the socket is root's alone."""
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert "denied" == as_nobody(path, "status")


def test_who_may_read_may_not_change(path: Path) -> None:
    """Peer credentials decide, not the mode of the file."""
    open_to_all_users(path.parent)
    path.chmod(0o666)
    assert ["ok", "denied", "denied"] == [
        as_nobody(path, command) for command in ("status", "down", "peers.add")
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: becomes another user")
def test_root_is_answered_beside_a_user_who_asks_without_end(path: Path) -> None:
    """64 KiB of requests in one write, from more clients than a user has places."""
    open_to_all_users(path.parent)
    path.chmod(0o666)
    line = b'{"command": "events", "most": 500}\n'
    ready, started = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresuid(NOBODY, NOBODY, NOBODY)
        greedy = [socket.socket(socket.AF_UNIX) for _ in range(20)]
        for client in greedy:
            client.connect(str(path))
            client.setblocking(False)
            client.send(line * (64 * 1024 // len(line)))
        os.write(started, b"x")
        time.sleep(60)
        os._exit(0)
    try:
        os.read(ready, 1)
        for _ in range(20):
            assert {"command": "status"} == request("status", socket_path=path, timeout=2)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(started)


def test_a_client_waits_where_the_queue_of_the_socket_is_full(tmp_path: Path) -> None:
    """The kernel refuses a connect that does not wait; a busy moment must not fail a command."""
    path = tmp_path / "control.sock"
    server = ControlServer(path, answer)
    waiting: list[socket.socket] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            waiting[-1].connect(str(path))
    with pytest.raises(ControlError, match="gave no answer"):
        request("status", socket_path=path, timeout=0.1)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(request, "status", None, path)
        with served(server):
            assert {"command": "status"} == asked.result(10)
    for one in waiting:
        one.close()


@pytest.mark.parametrize(
    "line",
    [
        b'{"command": ["status"]}',
        b'{"command": {}}',
        b"[" * 50_000,
        b"\xff\xfe",
        b"null",
        b"{}",
        b"1e999",
    ],
    ids=["a list", "an object", "a deep one", "no text", "null", "no command", "infinity"],
)
def test_no_line_ends_the_daemon(path: Path, line: bytes) -> None:
    """Whoever may ask may send anything; it is answered, and so is who asks next."""
    assert b'"bad-request"' in raw(path, line + b"\n")
    assert {"command": "status"} == request("status", None, path)
