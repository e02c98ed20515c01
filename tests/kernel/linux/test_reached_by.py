"""`Listener.reached_by` against the kernel: every bind is tried from every address.

In a network namespace of its own a socket is bound, read back by sock_diag as the product reads
it, and called at every address of the namespace.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address
from itertools import product

import pytest
from pyroute2 import IPRoute

from vllmwall.linux.listeners import SocketDump
from vllmwall.linux.netns import run_in_new
from vllmwall.model import Listener

pytestmark = pytest.mark.kernel

PORT = 29500
_NODAD = 0x02  # IFA_F_NODAD, linux/if_addr.h: usable at once
ADDED = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "fe80::1")
DESTINATIONS = (*ADDED, "127.0.0.1", "127.5.5.5", "::1")
MAPPED = [f"::ffff:{one}" for one in ("0.0.0.0", "127.0.0.1", "192.0.2.1")]
BINDS = [("0.0.0.0", False), ("127.0.0.1", False), ("192.0.2.1", False), *product(MAPPED, [False])]
BINDS += product(("::", "::1", "2001:db8::1", "fe80::1"), (False, True))
KINDS = [socket.SOCK_STREAM, socket.SOCK_DGRAM]


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def place(address: str) -> tuple[object, ...]:
    """As bind(2) and connect(2) want it; lo is interface 1."""
    if ":" not in address:
        return address, PORT
    return address, PORT, 0, 1 if address.startswith("fe80") else 0


@contextlib.contextmanager
def bound(address: str, kind: int, *, v6only: bool) -> Iterator[socket.socket]:
    """A socket that receives at the port."""
    with socket.socket(family_of(address), kind) as made:
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        made.bind(place(address))
        if kind == socket.SOCK_STREAM:
            made.listen()
        made.setblocking(False)
        yield made


def arrives(server: socket.socket, destination: str) -> bool:
    """Whether the kernel hands a packet to the server."""
    with socket.socket(family_of(destination), server.type) as caller:
        with contextlib.suppress(ConnectionRefusedError):
            caller.connect(place(destination))
            caller.send(b"x")
        with contextlib.suppress(BlockingIOError):
            if server.type == socket.SOCK_DGRAM:
                return server.recv(9) == b"x"
            server.accept()[0].close()
            return True
    return False


def read_back() -> Listener:
    """The one listener, as the product sees it."""
    with contextlib.closing(SocketDump()) as dump:
        (found,) = dump.listeners(PORT)
    return found


def give_addresses() -> None:
    with IPRoute() as routes:
        routes.link("set", index=1, state="up")
        for address in ADDED:
            length, flags = (128, {"flags": _NODAD}) if ":" in address else (32, {})
            routes.addr("add", index=1, address=address, prefixlen=length, **flags)
    until = time.monotonic() + 10
    while not all(map(is_usable, DESTINATIONS)) and time.monotonic() < until:
        time.sleep(0.01)  # IPv6 works on an address after the call has returned


def is_usable(address: str) -> bool:
    """Whether it can be bound and a packet to it arrives."""
    with contextlib.suppress(OSError), bound(address, socket.SOCK_DGRAM, v6only=False) as server:
        return arrives(server, address)
    return False


def tried(address: str, kind: int, *, v6only: bool) -> tuple[Listener, set[str]]:
    """The listener, and the addresses at which it was reached."""
    give_addresses()
    with bound(address, kind, v6only=v6only) as server:
        return read_back(), {one for one in DESTINATIONS if arrives(server, one)}


@pytest.mark.parametrize("kind", KINDS, ids=["tcp", "udp"])
@pytest.mark.parametrize(("address", "v6only"), BINDS)
def test_the_kernel_agrees(address: str, kind: int, *, v6only: bool) -> None:
    """Where packets arrive, where `reached_by` says so, and where `destinations` does."""
    listener, reached = run_in_new(lambda: tried(address, kind, v6only=v6only))
    assert {one for one in DESTINATIONS if listener.reached_by(ip_address(one))} == reached
    outside = {ip_address(one) for one in reached if not ip_address(one).is_loopback}
    places = {(to.family, to.address) for to in listener.destinations}
    assert outside == {
        one for one in map(ip_address, ADDED) if {(one.version, None), (one.version, one)} & places
    }


@pytest.mark.parametrize("address", MAPPED)
def test_a_mapped_address_cannot_be_bound_for_ipv6_alone(address: str) -> None:
    """So no listener is v6only and mapped."""

    def bind() -> None:
        give_addresses()
        with bound(address, socket.SOCK_STREAM, v6only=True):
            pass

    with pytest.raises(OSError, match=r"\[Errno (22|101)\]"):
        run_in_new(bind)
