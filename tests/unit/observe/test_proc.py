"""Reads of /proc that end, whatever is behind them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import eventually
from vllmwall.linux.bounded import read_ids
from vllmwall.observe.proc import (
    MOST_ARGUMENTS,
    MOST_WORDS,
    entries,
    parts_of,
    read,
    read_argv,
    read_environ,
    read_libraries,
    read_threads,
)
from vllmwall.observe.shares import Shares, account_of


@pytest.mark.parametrize("limit", [1, 4095, 4096, 4097, 10_000])
def test_no_more_is_read_than_the_limit(tmp_path: Path, limit: int) -> None:
    """A command line has up to two megabytes, and a memory map hundreds."""
    (tmp_path / "f").write_bytes(b"x" * 100_000)
    assert limit == len(read(str(tmp_path / "f"), limit))
    assert limit == sum(map(len, parts_of(str(tmp_path / "f"), limit, short_is_last=False)))


def test_a_folder_is_listed_in_part(tmp_path: Path) -> None:
    """A process has up to a million descriptors."""
    for number in range(30):
        (tmp_path / str(number)).touch()
    assert 10 == len(entries(str(tmp_path), 10))


def test_a_long_command_line_is_cut() -> None:
    """In bytes and in words."""
    for words in (["x" * 100_000], ["a"] * 50_000):
        argv = [sys.executable, "-c", "import time; time.sleep(60)", *words]
        with subprocess.Popen(argv) as child:
            eventually(lambda: "-c" in read_argv(child.pid), "it runs")
            found = read_argv(child.pid)
            child.kill()
        assert len(found) <= MOST_WORDS
        assert sum(map(len, found)) <= MOST_ARGUMENTS


def test_a_value_of_the_environment_is_short() -> None:
    """It stays in memory for the life of the process; the last of a name counts."""
    env = {"MASTER_ADDR": "x" * 100_000, "XMASTER_PORT": "2", "MASTER_PORT": "1"}
    with subprocess.Popen(["sleep", "60"], env=env) as child:
        eventually(lambda: read_environ(child.pid), "it runs")
        found = read_environ(child.pid)
        child.kill()
    assert {"MASTER_ADDR": "x" * 1024, "MASTER_PORT": "1"} == found


def test_our_own_threads_and_libraries_are_read() -> None:
    """And how much was read for them."""
    libraries, size = read_libraries(os.getpid())
    assert libraries is not None
    assert size > 1000
    assert sum(read_threads(os.getpid()).values()) >= 1


def test_ids_that_are_not_there_are_an_error() -> None:
    """Never those of root."""
    status = b"Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n"
    ids = read_ids(status)
    assert (1, 5, (9, 10), False) == (ids.user, ids.gid, ids.groups, ids.are_equal)
    for text in (b"", b"Uid:\t0\n", b"Uid:\t0\t0\t0\t0\n"):
        with pytest.raises(ValueError, match="no ids"):
            read_ids(text)


def test_one_user_over_the_share_takes_nothing_from_another() -> None:
    """Until it gives back."""
    shares = Shares(each=10, together=25)
    assert [True, False, True] == [shares.take(1, 8), shares.take(1, 8), shares.take(2, 8)]
    assert {1} == shares.over
    assert not shares.take(3, 10)
    shares.give_back(1, 8)
    assert shares.take(1, 9)
    assert shares.take(None, 10**9)


def test_root_of_a_container_has_a_share_and_root_here_has_none() -> None:
    """Root here may do anything."""
    assert [None, (0, 7), 5, 5] == [
        account_of(0, 1, 1),
        account_of(0, 7, 1),
        account_of(5, 1, 1),
        account_of(5, 7, 1),
    ]


def test_a_user_with_very_many_listeners_does_not_hide_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first of each user are listed, and the user is named."""
    from vllmwall.linux import listeners

    monkeypatch.setattr(listeners, "most_listeners", lambda _: 3)
    with socket.create_server(("127.0.0.1", 0)) as first:
        more = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
        dump = listeners.SocketDump()
        found = [one for one in dump.listeners() if one.uid == os.getuid()]
        dump.close()
        for one in (*more, first):
            one.close()
    assert (3, {os.getuid()}) == (len(found), {os.getuid()} & dump.over)
