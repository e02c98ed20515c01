"""The loop's socket server: one step a call, bounded, and no client holds another one up."""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from vllmwall.linux.listening import listen_tcp, listen_unix
from vllmwall.linux.loop_server import Bounds, Client, LoopServer

BOUNDS = Bounds()
ROOT, ALICE, BOB, CAROL = 0, 1000, 2000, 3000
BIG = b"z" * 1_000_000


class Echo:
    """A server that answers each line with itself; ``later`` is answered when the test says, and
    ``big`` with a megabyte. ``users`` are those of the clients to come, in their order; the last
    one is that of all others."""

    def __init__(
        self, path: Path, bounds: Bounds = BOUNDS, users: Sequence[int] = (ALICE,)
    ) -> None:
        self.taken: list[bytes] = []
        self.pending: list[Client] = []
        self.path = path
        self.users = list(users)
        self.server = LoopServer(listen_unix(path, None), self.take, bounds, path, self.user)

    def user(self, _: socket.socket) -> int:
        """Whose client has come."""
        return self.users.pop(0) if len(self.users) > 1 else self.users[0]

    def take(self, client: Client) -> None:
        """Take one line."""
        line, newline, rest = client.incoming.partition(b"\n")
        if newline:
            client.incoming = rest
            self.taken.append(line)
            if line == b"big":
                client.outgoing = BIG
                return
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

    def rounds(self, most: int = 200) -> None:
        """Rounds until nothing is ready; no more than ``most``."""
        for _ in range(most):
            if not self.round():
                return
        raise AssertionError("there is always something ready")

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


def test_nothing_is_computed_for_a_client_that_has_left(tmp_path: Path) -> None:
    """However much it had asked, in one write or in many connections."""
    echo = Echo(tmp_path / "s")
    for _ in range(10):
        with echo.client() as one:
            one.sendall(b"x\n" * 20)
    echo.rounds()
    assert [] == echo.taken
    with echo.client() as one:
        one.sendall(b"x\n" * 20)
        while not echo.taken:
            echo.round()
    echo.rounds()
    assert [b"x"] == echo.taken


def test_a_client_that_is_half_closed_costs_no_rounds(echo: Echo) -> None:
    """Neither while it does not read, nor while it waits; then it gets all its answers."""
    with echo.client() as stuck, echo.client() as waiting:
        stuck.sendall(b"big\n" * 3)
        waiting.sendall(b"later\nnext\n")
        for one in (stuck, waiting):
            one.shutdown(socket.SHUT_WR)
        echo.rounds()
        assert [b"big", b"later"] == sorted(echo.taken)
        echo.server.answer(echo.pending.pop(), b"at last\n")
        echo.rounds()
        assert b"at last\nnext\n" == waiting.makefile("rb").read()
        stuck.setblocking(False)
        got = b""
        for _ in range(1000):
            echo.round()
            try:
                got += stuck.recv(1 << 20)
            except BlockingIOError:
                continue
            if len(got) == 3 * len(BIG):
                break
        assert 3 * BIG == got


def test_nothing_is_read_from_a_client_that_does_not_take_its_answer(echo: Echo) -> None:
    """What it sends waits in the kernel, which makes it wait."""
    with echo.client() as stuck:
        stuck.sendall(b"big\n")
        echo.rounds()
        [client] = echo.server._clients.values()
        stuck.setblocking(False)
        with pytest.raises(BlockingIOError):
            while stuck.send(b"x\n" * 1000):
                echo.round()
        assert (b"", [b"big"]) == (client.incoming, echo.taken)


def test_many_requests_in_one_write_are_more_than_one_may_hold(tmp_path: Path) -> None:
    """Only the size of one request is bounded."""
    echo = Echo(tmp_path / "s", Bounds(bytes=100))
    with echo.client() as client:
        client.sendall(b"x\n" * 300)
        got = b""
        while len(got) < 600:
            echo.rounds()
            got += client.recv(600)
        assert b"x\n" * 300 == got


def test_of_all_but_root_one_is_answered_in_a_round(tmp_path: Path) -> None:
    """And root in the same round, however many others ask."""
    echo = Echo(tmp_path / "s", users=[*range(1000, 1020), ROOT])
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(echo.client()).sendall(b"other\n" * 100)
        echo.round()
        before = len(echo.taken)
        stack.enter_context(echo.client()).sendall(b"root\n")
        for _ in range(2):
            echo.round()
        assert b"root" in echo.taken
        assert len(echo.taken) - before <= 3


def test_others_take_turns(tmp_path: Path) -> None:
    """A client with many requests waits until all others have had one; root's comes first."""
    users = [ALICE, BOB, CAROL]
    echo = Echo(tmp_path / "s", users=[*users, ROOT])
    with ExitStack() as stack:
        for user in users:
            stack.enter_context(echo.client()).sendall(b"%d\n" % user * 50)
        echo.round()
        before = len(echo.taken)
        while len(echo.taken) < before + 21:
            echo.round()
        since = echo.taken[before:]
        assert [7, 7, 7] == [since.count(b"%d" % user) for user in users]
        root = stack.enter_context(echo.client())
        echo.round()
        before = len(echo.taken)
        root.sendall(b"root\n")
        echo.round()
        assert b"root" == echo.taken[before]


def test_answers_that_are_not_taken_are_bounded_for_each_user(tmp_path: Path) -> None:
    """By bytes, over all clients of the user; another user is answered."""
    echo = Echo(tmp_path / "s", Bounds(outgoing=1_500_000), users=[*[ALICE] * 6, BOB])
    with ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(echo.client()).sendall(b"big\n")
        echo.rounds()
        assert [b"big"] * 2 == echo.taken
        stack.enter_context(echo.client()).sendall(b"bob\n")
        echo.rounds()
        assert [b"big", b"big", b"bob"] == echo.taken


def test_an_answer_that_nobody_takes_is_dropped_after_a_time(tmp_path: Path) -> None:
    """What is taken in steps stays."""
    echo = Echo(tmp_path / "s", Bounds(stalled=0.4))
    with echo.client() as stuck, echo.client() as slow:
        for one in (stuck, slow):
            one.sendall(b"big\n")
        got = b""
        for _ in range(4):
            echo.rounds()
            time.sleep(0.1)
            got += slow.recv(1 << 18)
        assert 1 == len(echo.server._clients)
        while len(got) < len(BIG):
            echo.round()
            got += slow.recv(1 << 20)
        assert BIG == got


class Clock:
    """The server's clock, which the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("vllmwall.linux.loop_server.time.monotonic", lambda: self.now)


def test_requests_of_one_user_are_bounded_in_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over all its clients, new ones too; other users and root's other clients do not wait."""
    clock = Clock(monkeypatch)
    users = [ALICE, ALICE, BOB, ROOT, ROOT, ALICE]
    echo = Echo(tmp_path / "s", Bounds(rate=10.0), users)
    with ExitStack() as stack:
        for number in range(5):
            stack.enter_context(echo.client()).sendall(b"%d\n" % number * 3)
        echo.rounds()
        assert [b"0", b"2", b"3", b"4"] == sorted(echo.taken)
        assert clock.now + 0.1 == pytest.approx(echo.server.deadline)
        stack.enter_context(echo.client()).sendall(b"new\n")
        echo.rounds()
        assert 4 == len(echo.taken)
        clock.now += 0.1
        echo.rounds()
        assert 8 == len(echo.taken)


def test_a_user_who_has_left_and_come_again_still_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new connection is no new account."""
    Clock(monkeypatch)
    echo = Echo(tmp_path / "s", Bounds(rate=10.0))
    for _ in range(3):
        with echo.client() as one:
            one.sendall(b"x\n")
            echo.rounds()
        echo.rounds()
    assert [b"x"] == echo.taken


def test_a_user_gets_a_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that took a second puts the next one off by three, at a quarter."""
    clock = Clock(monkeypatch)
    echo = Echo(tmp_path / "s", Bounds(share=0.25))
    take = echo.server._take

    def slowly(client: Client) -> None:
        clock.now += 1
        take(client)

    echo.server._take = slowly
    with echo.client() as one:
        one.sendall(b"x\n" * 5)
        echo.rounds()
        assert 1 == len(echo.taken)
        clock.now += 2.9
        echo.rounds()
        assert 1 == len(echo.taken)
        clock.now += 0.2
        echo.rounds()
        assert 2 == len(echo.taken)


def test_places_of_root_and_of_other_users_are_not_for_one_user(tmp_path: Path) -> None:
    """Who connects again and again drops clients of its own."""
    users = [ROOT, BOB, *[ALICE] * 18, *[ROOT] * 10]
    echo = Echo(tmp_path / "s", Bounds(clients=10, of_user=3), users)
    with ExitStack() as stack:
        root, bob, *alices = [stack.enter_context(echo.client()) for _ in range(20)]
        echo.rounds()
        for one in (root, bob, *alices[-3:]):
            one.sendall(b"x\n")
            echo.rounds()
            assert b"x\n" == one.recv(2)
        assert b"" == alices[0].recv(1)
        assert 5 == len(echo.server._clients)
        for _ in range(10):
            stack.enter_context(echo.client())
        echo.rounds()
        assert 7 == len(echo.server._clients)


def test_a_full_server_drops_one_of_the_user_with_most_clients(tmp_path: Path) -> None:
    """One that waits for no answer before one that does; root has a place all the same."""
    users = [BOB, *[ALICE] * 3, CAROL, ROOT]
    echo = Echo(tmp_path / "s", Bounds(clients=4, of_user=3), users)
    with ExitStack() as stack:
        bob, *alices = [stack.enter_context(echo.client()) for _ in range(4)]
        alices[0].sendall(b"later\n")
        echo.rounds()
        carol = stack.enter_context(echo.client())
        echo.rounds()
        assert b"" == alices[1].recv(1)
        root = stack.enter_context(echo.client())
        echo.rounds()
        echo.server.answer(echo.pending.pop(), b"at last\n")
        for one in (bob, alices[2], carol, root):
            one.sendall(b"x\n")
        echo.rounds()
        assert b"at last\n" == alices[0].recv(100)
        assert [b"x\n"] * 4 == [one.recv(2) for one in (bob, alices[2], carol, root)]


def test_those_who_only_connect_do_not_push_out_one_that_asks(tmp_path: Path) -> None:
    """Even if they are of the same user and the request came first."""
    echo = Echo(tmp_path / "s", Bounds(of_user=2))
    with echo.client() as asking:
        asking.sendall(b"x\n")
        silent = [echo.client() for _ in range(10)]
        for one in silent[:5]:
            one.close()
        echo.rounds()
        assert b"x\n" == asking.recv(2)
        for one in silent[5:]:
            one.close()


def test_many_who_connect_at_once_are_accepted_in_one_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the server pauses, so that connecting in a loop costs it little."""
    clock = Clock(monkeypatch)
    echo = Echo(tmp_path / "s", Bounds(clients=100, of_user=100))
    with ExitStack() as stack:
        for _ in range(32):
            stack.enter_context(echo.client())
        echo.round()
        assert 32 == len(echo.server._clients)
        stack.enter_context(echo.client())
        echo.rounds()
        assert 32 == len(echo.server._clients)
        assert clock.now + 0.01 == pytest.approx(echo.server.deadline)
        clock.now += 0.01
        echo.rounds()
        assert 33 == len(echo.server._clients)


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
