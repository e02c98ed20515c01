"""How connections are reset: that very socket, at any port, and what is said when it fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial

import pytest

from tests.support.lab import Lab
from tests.support.severing import PATIENCE, Dial, apply_to, dialled, ends, lives
from tests.support.walls import entry, wall
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.enforce.sever import UNSUPPORTED, Severed, reset_all
from vllmwall.linux import netlink
from vllmwall.linux.connections import Connection, decoded, handles, reset
from vllmwall.model import WallEntry

V4, PORT = "192.0.2.1", 29500
DENIED = "netlink: Operation not permitted"
UNPRIVILEGED = f"""
import sys
from vllmwall.enforce.sever import sever
from vllmwall.model import Proto, Wall, WallEntry
entry = WallEntry(4, Proto.TCP, {PORT}, ("node",))
sever(sys.argv[1], Wall(0, frozenset({{entry}}), {{}}))
"""


@pytest.fixture
def dial() -> Iterator[Dial]:
    """Connect from a host, to an echo; the connections are closed after the test."""
    with ExitStack() as held:
        yield partial(dialled, held)


@pytest.mark.parametrize("ports", [90, 130])
def test_a_wall_of_many_ports_severs_at_each(
    lab: Lab, backend: Nftables, dial: Dial, ports: int
) -> None:
    """Neighbours and gaps, few enough for the kernel's filter and too many for it."""
    gaps = [20000 + 3 * number for number in range(ports)]
    neighbours = list(range(21000, 21010))
    tried = [*gaps[:3], *gaps[-3:], *neighbours[:2], *neighbours[-2:]]
    beside = [19999, 20001, 20999, 21010, gaps[-1] + 1]
    for port in (*tried, *beside):
        lab.node.listen("0.0.0.0", port)
    strangers = [dial(lab.stranger, V4, port) for port in tried]
    kept = [dial(lab.stranger, V4, port) for port in beside]
    entries: list[WallEntry] = [entry(port, "peers") for port in (*gaps, *neighbours)]
    found = apply_to(backend, lab.node, wall(lab.node, entries))
    assert set(tried) == {one.local_port for one in found.connections}
    assert {one.getsockname() for one in strangers} == ends(found)
    assert [True] * len(kept) == [lives(one) for one in kept]


def test_other_ports_stay_in_the_kernel(lab: Lab, dial: Dial) -> None:
    """A node of many connections and few walled ports is asked about those alone."""
    ports = range(20000, 20008)
    for port in ports:
        lab.node.listen("::", port)
        dial(lab.stranger, V4, port)
        dial(lab.stranger, lab.node.ipv6, port)

    def seen(*wanted: int) -> list[int]:
        with closing(netlink.opened(netlink.SOCK_DIAG)) as diag:
            return sorted(decoded(*one).local_port for one in handles(diag, wanted))

    asked = (20001, 20003, 20004, 20005)
    assert sorted(asked * 2) == lab.node.call(lambda: seen(*asked))
    assert [20007] * 2 == lab.node.call(lambda: seen(20007))


def test_a_reset_hits_that_very_socket_only(lab: Lab, dial: Dial) -> None:
    """The cookie tells it from a later one with the same addresses, and from the listener."""
    lab.node.listen("0.0.0.0", PORT)
    client = dial(lab.stranger, V4, PORT)

    def try_an_older_one() -> Severed:
        with closing(netlink.opened(netlink.SOCK_DIAG)) as diag:
            [(handle, uid)] = handles(diag, {PORT})
            older = handle[:-8] + bytes([handle[-8] ^ 1]) + handle[-7:]
            return reset_all(diag, [decoded(older, uid)])

    assert Severed() == lab.node.call(try_an_older_one)
    assert lives(client)
    assert "open" == lab.stranger.connect(V4, PORT, timeout=PATIENCE)


def test_a_connection_that_ended_meanwhile_is_none_of_ours(lab: Lab, dial: Dial) -> None:
    """It is not reported, the listener at its port stays, and the next one is reset."""
    lab.node.listen("0.0.0.0", PORT)
    gone, there = dial(lab.stranger, V4, PORT), dial(lab.stranger, V4, PORT)

    def reset_both() -> Severed:
        with closing(netlink.opened(netlink.SOCK_DIAG)) as diag:
            found = [decoded(*one) for one in handles(diag, {PORT})]
            first = next(one for one in found if one.remote_port == gone.getsockname()[1])
            reset(diag, first.handle)
            return reset_all(diag, [first, *(one for one in found if one != first)])

    assert {there.getsockname()} == ends(lab.node.call(reset_both))
    assert "open" == lab.stranger.connect(V4, PORT, timeout=PATIENCE)


def test_a_kernel_that_resets_nothing_is_said_so(lab: Lab, dial: Dial) -> None:
    """No error: the rules drop the packets anyway. (Here the kernel's own word for a unix
    socket, which it resets on no configuration.)"""
    lab.node.listen("0.0.0.0", PORT)
    client = dial(lab.stranger, V4, PORT)

    def reset_a_unix_socket() -> Severed:
        with closing(netlink.opened(netlink.SOCK_DIAG)) as diag:
            [(handle, uid)] = handles(diag, {PORT})
            connection = decoded(handle, uid)
            unix = Connection(
                connection.local, PORT, connection.remote, 1, handle=b"\x01" + handle[1:]
            )
            return reset_all(diag, [unix, connection])

    assert Severed((), UNSUPPORTED) == lab.node.call(reset_a_unix_socket)
    assert lives(client)


def test_without_the_right_to_it_sever_says_so(lab: Lab, dial: Dial) -> None:
    """A daemon that may not reset connections must hear of it."""
    lab.node.listen("0.0.0.0", PORT)
    client = dial(lab.stranger, V4, PORT)
    command = ["setpriv", "--bounding-set=-net_admin", sys.executable, "-c", UNPRIVILEGED]
    said = subprocess.run(
        [*command, lab.node.path], capture_output=True, text=True, check=False, timeout=30
    )
    assert said.stderr.splitlines()[-1:] == ["PermissionError: [Errno 1] " + DENIED]
    assert lives(client)
