"""The owners of sockets: real processes, real descriptors."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from vllmwall.observe import owners
from vllmwall.observe.owners import OwnerIndex, sockets_of


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A listening socket of this process."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        found.listen()
        yield found


def inode_of(one: socket.socket) -> int:
    return os.fstat(one.fileno()).st_ino


@pytest.fixture
def child(listening: socket.socket) -> Iterator[int]:
    """A forked child that has inherited the listening socket and waits."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    yield pid
    os.close(write)
    os.waitpid(pid, 0)


def test_every_process_that_shares_a_socket_is_an_owner(
    listening: socket.socket, child: int
) -> None:
    """vLLM with several API servers shares one socket among three processes."""
    found = OwnerIndex().update({inode_of(listening)}, {os.getpid(): 1, child: 1})
    assert tuple(sorted((os.getpid(), child))) == found[inode_of(listening)]


def test_an_owner_that_ended_is_forgotten(listening: socket.socket, child: int) -> None:
    """The socket lives on in the other process."""
    index = OwnerIndex()
    index.update({inode_of(listening)}, {os.getpid(): 1, child: 1})
    found = index.update({inode_of(listening)}, {os.getpid(): 1})
    assert (os.getpid(),) == found[inode_of(listening)]


def test_a_new_socket_of_a_process_that_was_read_before_is_found() -> None:
    """A listener that no event announced is still attributed at the next pass."""
    index = OwnerIndex()
    index.update(set(), {os.getpid(): 1})
    with socket.socket() as later:
        found = index.update({inode_of(later)}, {os.getpid(): 1})
        assert (os.getpid(),) == found[inode_of(later)]


def test_a_reused_pid_is_read_again(listening: socket.socket) -> None:
    """What the dead process held is not the new one's."""
    index = OwnerIndex()
    index.update({inode_of(listening)}, {os.getpid(): "old"})
    inode = inode_of(listening)
    listening.close()
    found = index.update({inode}, {os.getpid(): "new"})
    assert () == found[inode]


def test_a_process_that_is_gone_holds_nothing() -> None:
    """Races with processes that end are normal."""
    assert (set(), 0) == sockets_of(2**22 + 1)


def test_a_process_that_cannot_be_read_is_an_error_not_a_process_without_sockets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With no descriptors left every wall would otherwise seem unneeded and come down."""

    def refuse(folder: str) -> None:
        raise OSError(24, "Too many open files", folder)

    monkeypatch.setattr(owners.os, "scandir", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        sockets_of(os.getpid())


def test_a_socket_without_owner_is_searched_for_once_not_at_every_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kernel sockets (NFS, WireGuard) have no owner; looking for one reads the whole node."""
    index = OwnerIndex()
    index.update({1}, {os.getpid(): 1})
    read: list[int] = []
    monkeypatch.setattr(owners, "sockets_of", lambda pid, *_: (read.append(pid) or set(), 0))
    index.update({1}, {os.getpid(): 1})
    assert [] == read
