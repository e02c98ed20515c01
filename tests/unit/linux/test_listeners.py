"""The answers of sock_diag about real sockets of this very process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from vllmwall.linux.listeners import SocketDump
from vllmwall.model import Listener, Proto


@pytest.fixture
def dump() -> Iterator[SocketDump]:
    """A dump of our own network namespace."""
    found = SocketDump()
    yield found
    found.close()


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Sockets put on this stack are closed whatever happens."""
    with ExitStack() as stack:
        yield stack


def bound(stack: ExitStack, family: int, kind: int, address: str) -> socket.socket:
    """A socket bound to a free port of ``address``."""
    found = stack.enter_context(socket.socket(family, kind))
    found.bind((address, 0))
    return found


def on_port(dump: SocketDump, port: int) -> list[Listener]:
    return [listener for listener in dump.listeners() if listener.port == port]


def test_a_tcp_listener_is_seen_with_its_address_inode_and_queue_limit(
    dump: SocketDump, opened: ExitStack
) -> None:
    """The listener's own facts come from the kernel."""
    listening = bound(opened, socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1")
    listening.listen(77)
    [found] = on_port(dump, listening.getsockname()[1])
    assert (Proto.TCP, ip_address("127.0.0.1"), 77) == (
        found.proto,
        found.address,
        found.queue_limit,
    )
    assert f"socket:[{found.inode}]" in __import__("os").readlink(
        f"/proc/self/fd/{listening.fileno()}"
    )


def test_a_bound_socket_that_does_not_listen_yet_is_no_listener(
    dump: SocketDump, opened: ExitStack
) -> None:
    """vLLM binds its API port minutes before it listens."""
    waiting = bound(opened, socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1")
    assert [] == on_port(dump, waiting.getsockname()[1])


@pytest.mark.parametrize("v6only", [True, False])
def test_v6only_is_told_apart_from_dual_stack(
    dump: SocketDump, opened: ExitStack, v6only: bool
) -> None:
    """A v6only wildcard leaves the same IPv4 port to somebody else."""
    listening = opened.enter_context(socket.socket(socket.AF_INET6))
    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    listening.bind(("::", 0))
    listening.listen()
    [found] = on_port(dump, listening.getsockname()[1])
    assert v6only == found.v6only


def test_a_mapped_address_is_kept_as_the_kernel_writes_it(
    dump: SocketDump, opened: ExitStack
) -> None:
    """``::ffff:127.0.0.1`` is loopback, however it is written."""
    listening = bound(opened, socket.AF_INET6, socket.SOCK_STREAM, "::ffff:127.0.0.1")
    listening.listen()
    [found] = on_port(dump, listening.getsockname()[1])
    assert ("::ffff:127.0.0.1", True) == (
        "::ffff:" + str(found.plain_address),
        found.is_loopback,
    )


def test_an_unconnected_udp_socket_is_a_listener_and_a_connected_one_is_not(
    dump: SocketDump, opened: ExitStack
) -> None:
    """UDP has no LISTEN: bound and unconnected receives from anybody."""
    open_to_all = bound(opened, socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1")
    connected = bound(opened, socket.AF_INET, socket.SOCK_DGRAM, "127.0.0.1")
    connected.connect(open_to_all.getsockname())
    assert [Proto.UDP] == [one.proto for one in on_port(dump, open_to_all.getsockname()[1])]
    assert [] == on_port(dump, connected.getsockname()[1])


def test_a_port_narrows_the_dump_in_the_kernel(dump: SocketDump, opened: ExitStack) -> None:
    """After an event only one port is read."""
    ports = []
    for _ in range(3):
        listening = bound(opened, socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1")
        listening.listen()
        ports.append(listening.getsockname()[1])
    assert {ports[1]} == {one.port for one in dump.listeners(ports[1])}


def test_a_dump_of_thousands_of_listeners_is_whole(dump: SocketDump, opened: ExitStack) -> None:
    """The answer comes in many parts; none is dropped."""
    ports = set()
    for _ in range(1500):
        listening = bound(opened, socket.AF_INET, socket.SOCK_STREAM, "127.0.0.1")
        listening.listen()
        ports.add(listening.getsockname()[1])
    assert ports <= {one.port for one in dump.listeners()}
