"""The loop's socket server: one step a call, bounded, and no client holds another one up."""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from pathlib import Path

import pytest

from vllmwall.linux.loop_server import Bounds, Client, LoopServer, listen_tcp, listen_unix

BOUNDS = Bounds()


class Echo:
    """A server that answers each line with itself; ``later`` is answered when the test says."""

    def __init__(self, path: Path, bounds: Bounds = BOUNDS) -> None:
        self.taken: list[bytes] = []
        self.pending: list[Client] = []
        self.path = path
        self.server = LoopServer(listen_unix(path, None), self.take, bounds, path)

    def take(self, client: Client) -> None:
        """Take one line."""
        line, newline, rest = client.incoming.partition(b"\n")
        if newline:
            client.incoming = rest
            self.taken.append(line)
            if line == b"later":
                self.pending.append(client)
                client.is_pending = True
            else:
                client.outgoing = line + b"\n"

    def round(self) -> int:
        """One round of the loop; how many descriptors were ready."""
        poll = select.poll()
        for descriptor, events in self.server.descriptors().items():
            poll.register(descriptor, events)
        ready = poll.poll(50)
        for descriptor, _ in ready:
            assert self.server.ready(descriptor)
        return len(ready)

    def client(self) -> socket.socket:
        """A client that has connected."""
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(5)
        made.connect(str(self.path))
        return made


@pytest.fixture
def echo(tmp_path: Path) -> Echo:
    return Echo(tmp_path / "echo.sock")


def test_requests_of_one_client_take_turns_with_everything_else(echo: Echo) -> None:
    """A client that sends fifteen at once has one answered in a round."""
    with echo.client() as greedy, echo.client() as other:
        greedy.sendall(b"x\n" * 15)
        other.sendall(b"y\n")
        for _ in range(4):
            echo.round()
        assert b"y" in echo.taken
        assert len(echo.taken) <= 5
        while len(echo.taken) < 16:
            assert echo.round()
        echo.round()
        assert b"x\n" * 15 == greedy.recv(30, socket.MSG_WAITALL)


def test_a_client_that_does_not_read_costs_no_turns(echo: Echo) -> None:
    """Neither its full socket nor what else it sends wakes the loop."""
    with echo.client() as stuck:
        stuck.sendall(b"later\n")
        echo.round(), echo.round()
        echo.server.answer(echo.pending.pop(), b"z" * 5_000_000)
        stuck.sendall(b"x\n")
        while echo.round():
            pass
        assert 0 == echo.round()
        assert [b"later"] == echo.taken


def test_an_answer_can_come_later_and_what_follows_waits_for_it(echo: Echo) -> None:
    """Answers keep the order of the requests."""
    with echo.client() as client:
        client.sendall(b"later\nnext\n")
        echo.round(), echo.round()
        client.sendall(b"more\n")
        echo.round()
        assert [b"later"] == echo.taken
        echo.server.answer(echo.pending.pop(), b"at last\n")
        while echo.round():
            pass
        assert b"at last\nnext\nmore\n" == client.recv(100)


def test_a_client_that_leaves_while_it_waits_is_known_to_be_gone(echo: Echo) -> None:
    """So nothing needs to be done for it; its late answer goes nowhere."""
    client = echo.client()
    client.sendall(b"later\n")
    echo.round(), echo.round()
    [waiting] = echo.pending
    assert not waiting.is_gone
    client.close()
    echo.round()
    assert waiting.is_gone
    echo.server.answer(waiting, b"nobody reads this\n")
    assert 0 == echo.round()


def test_too_many_bytes_and_too_many_clients_are_dropped(tmp_path: Path) -> None:
    """The oldest client goes first."""
    echo = Echo(tmp_path / "s", Bounds(clients=2, bytes=100))
    with echo.client() as first, echo.client() as second, echo.client() as third:
        for _ in range(3):
            echo.round()
        assert b"" == first.recv(1)
        third.sendall(b"x" * 101)
        echo.round(), echo.round()
        assert b"" == third.recv(1)
        second.sendall(b"x\n")
        echo.round(), echo.round()
        assert b"x\n" == second.recv(2)


def test_a_client_that_takes_too_long_is_dropped(tmp_path: Path) -> None:
    """However it trickles."""
    echo = Echo(tmp_path / "s", Bounds(seconds=0.05))
    with echo.client() as slow:
        echo.round()
        slow.sendall(b"x")
        echo.round()
        time.sleep(0.1)
        echo.server.descriptors()
        assert b"" == slow.recv(1)


def test_a_socket_replaces_a_socket_and_no_other_file(tmp_path: Path) -> None:
    """A path that was mistyped must not cost a file."""
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="is no socket"):
        listen_unix(path, None)
    assert "precious" == path.read_text()
    path.unlink()
    listen_unix(path, None).close()
    with listen_unix(path, None):
        assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert ["s"] == [one.name for one in tmp_path.iterdir()]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives a socket to a group")
def test_a_group_may_open_the_socket(tmp_path: Path) -> None:
    """And nobody else."""
    with listen_unix(tmp_path / "s", 65534):
        found = (tmp_path / "s").stat()
    assert (65534, 0o660) == (found.st_gid, stat.S_IMODE(found.st_mode))


def test_the_path_is_removed_at_the_end(echo: Echo) -> None:
    """A daemon that has ended answers nobody."""
    echo.server.close()
    assert not echo.path.exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_tcp_of_both_families(host: str) -> None:
    """As `metrics.listen` names them."""
    with listen_tcp(host, 0) as listening:
        assert host == listening.getsockname()[0]
