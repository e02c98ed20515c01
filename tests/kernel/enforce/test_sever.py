"""The connections that a new wall resets, and those that live on: real ones, real resets."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from ipaddress import ip_address

import pytest

from tests.support.lab import PEER, STRANGER, Host, Lab
from tests.support.severing import PATIENCE, Dial, Door, apply_to, dialled, ending, ends, lives
from tests.support.waiting import eventually
from tests.support.walls import entry, everywhere, wall
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.enforce.sever import Severed, sever
from vllmwall.linux.connections import Connection
from vllmwall.model import Mode

V4, V6, OTHER = "192.0.2.1", "2001:db8::1", "192.0.2.77"
PORT, PUBLIC, FREE = 29500, 8000, 8001
WALLED = everywhere(PORT, "peers")


@pytest.fixture
def held() -> Iterator[ExitStack]:
    """Sockets put on this stack are closed whatever happens."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def dial(held: ExitStack) -> Dial:
    """Connect from a host, to an echo; the connection is closed after the test."""
    return partial(dialled, held)


def states(host: Host) -> list[str]:
    """The TCP states at the walled port, as ss names them, listeners left out."""
    shown = host.run(["ss", "-Htan", f"sport = :{PORT}"]).stdout
    return sorted(line.split()[0] for line in shown.splitlines() if "LISTEN" not in line)


def test_a_stranger_who_came_before_the_wall_is_reset_at_both_ends(
    lab: Lab, backend: Nftables, held: ExitStack
) -> None:
    """Neither end waits for minutes; the report says whose it was and what refused it."""
    door = Door(lab.node, "0.0.0.0", PORT, held)
    client = held.enter_context(lab.stranger.dial(V4, PORT, timeout=PATIENCE))
    server = door.accept()
    found = apply_to(backend, lab.node, wall(lab.node, WALLED))
    assert errno.ECONNRESET == ending(client)
    assert errno.ECONNABORTED == ending(server)
    [connection] = found.connections
    expected = Connection(
        ip_address(V4),
        PORT,
        ip_address(STRANGER[0]),
        client.getsockname()[1],
        uid=os.getuid(),
        entry=entry(PORT, "peers"),
    )
    assert (expected, None) == (connection, found.unsupported)


REACHED = {
    "IPv4": ("0.0.0.0", V4, WALLED),
    "IPv6": ("::", V6, WALLED),
    "IPv4 at a socket for both": ("::", V4, WALLED),
    "one address": (V4, V4, [entry(PORT, "peers", at=V4)]),
    "one address, mapped": (f"::ffff:{V4}", V4, [entry(PORT, "peers", at=V4)]),
    "one IPv6 address": (V6, V6, [entry(PORT, "peers", at=V6)]),
    "an address that is closed where the rest is open": (
        "0.0.0.0",
        V4,
        [entry(PORT, "public"), entry(PORT, "node", at=V4)],
    ),
}


@pytest.mark.parametrize("bind", REACHED)
def test_a_stranger_is_found_whatever_the_socket(
    lab: Lab, backend: Nftables, dial: Dial, bind: str
) -> None:
    """What counts is the packet on the wire, not how the process wrote its address."""
    address, reached_at, entries = REACHED[bind]
    lab.node.listen(address, PORT)
    client = dial(lab.stranger, reached_at, PORT)
    found = apply_to(backend, lab.node, wall(lab.node, entries))
    assert errno.ECONNRESET == ending(client)
    assert {client.getsockname()[:2]} == ends(found)


def test_all_others_live_on(lab: Lab, backend: Nftables, dial: Dial) -> None:
    """Peers, public ports, this host itself and what it opened outward keep their connections."""
    lab.node.add_address(OTHER)
    lab.stranger.listen("::", 9000)
    for port in (PORT, PUBLIC, FREE):
        lab.node.listen("::", port)
    kept = [
        dial(lab.peer, V4, PORT),
        dial(lab.peer, V6, PORT),
        dial(lab.stranger, V4, PUBLIC),
        dial(lab.stranger, V6, PUBLIC),
        dial(lab.stranger, V4, FREE),
        dial(lab.stranger, OTHER, PORT),
        dial(lab.node, STRANGER[0], 9000),
        dial(lab.node, STRANGER[1], 9000),
    ]
    strangers = [dial(lab.stranger, V4, PORT), dial(lab.stranger, V6, PORT)]
    entries = [*WALLED, *everywhere(PUBLIC, "public"), entry(PORT, "public", at=OTHER)]
    found = apply_to(backend, lab.node, wall(lab.node, entries))
    assert {one.getsockname()[:2] for one in strangers} == ends(found)
    assert [True] * len(kept) == [lives(one) for one in kept]


def test_the_host_itself_lives_on_at_whatever_address(
    lab: Lab, backend: Nftables, dial: Dial
) -> None:
    """Its packets come over lo: from loopback, from its own addresses, from a route to itself."""
    lab.node.add_address(OTHER)
    lab.node.run(["ip", "route", "add", "local", "198.51.100.0/24", "dev", "lo"])
    lab.node.listen("::", PORT)
    own = [
        dial(lab.node, "127.0.0.1", PORT),
        dial(lab.node, "::1", PORT),
        dial(lab.node, V4, PORT),
        dial(lab.node, V6, PORT),
        dial(lab.node, V4, PORT, source=OTHER),
        dial(lab.node, OTHER, PORT, source="127.0.0.9"),
        dial(lab.node, V4, PORT, source="198.51.100.7"),
    ]
    found = apply_to(backend, lab.node, wall(lab.node, everywhere(PORT, "node"), peers=[]))
    assert Severed() == found
    assert [True] * len(own) == [lives(one) for one in own]


def test_peers_that_left_are_reset_and_those_that_stay_are_not(
    lab: Lab, backend: Nftables, dial: Dial
) -> None:
    """Shrinking the list cuts what it cut off."""
    lab.node.listen("::", PORT)
    before = wall(lab.node, WALLED, peers=[*PEER, "203.0.113.0/24", "2001:db8:bad::/64"])
    backend.apply(lab.node.path, before, None)
    staying = [dial(lab.peer, V4, PORT), dial(lab.peer, V6, PORT)]
    leaving = [dial(lab.stranger, V4, PORT), dial(lab.stranger, V6, PORT)]
    assert Severed() == sever(lab.node.path, before)
    after = wall(lab.node, WALLED)
    backend.apply(lab.node.path, after, before)
    found = sever(lab.node.path, after)
    assert {one.getsockname()[:2] for one in leaving} == ends(found)
    assert [errno.ECONNRESET] * 2 == [ending(one) for one in leaving]
    assert [True] * 2 == [lives(one) for one in staying]


def test_another_namespace_keeps_its_connections(lab: Lab, backend: Nftables, dial: Dial) -> None:
    """A wall speaks for its own namespace: the same port elsewhere is somebody else's."""
    for host in (lab.node, lab.peer):
        host.listen("0.0.0.0", PORT)
    here, there = dial(lab.stranger, V4, PORT), dial(lab.stranger, PEER[0], PORT)
    apply_to(backend, lab.node, wall(lab.node, WALLED))
    assert errno.ECONNRESET == ending(here)
    assert lives(there)


def test_audit_severs_nothing(lab: Lab, backend: Nftables, dial: Dial) -> None:
    """A wall that only counts cuts no connection."""
    lab.node.listen("0.0.0.0", PORT)
    client = dial(lab.stranger, V4, PORT)
    assert Severed() == apply_to(backend, lab.node, wall(lab.node, WALLED, mode=Mode.AUDIT))
    assert lives(client)


def test_a_handshake_that_is_not_done_is_ended(
    lab: Lab, backend: Nftables, held: ExitStack
) -> None:
    """A stranger in SYN_RECV is dropped before any process sees him, on either family."""
    door = Door(lab.node, "::", PORT, held)
    # The server is told when data comes; until then the connection stays half open.
    door.listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 60)
    for address in (V4, V6):
        held.enter_context(lab.stranger.dial(address, PORT, timeout=PATIENCE))
    assert ["SYN-RECV"] * 2 == states(lab.node)
    found = apply_to(backend, lab.node, wall(lab.node, WALLED))
    assert set(STRANGER) == {remote for remote, _ in ends(found)}
    assert [] == states(lab.node)


def test_a_connection_nobody_accepted_yet_is_reset(
    lab: Lab, backend: Nftables, held: ExitStack
) -> None:
    """It waits in the listener's queue and belongs to no descriptor; the server never gets it."""
    door = Door(lab.node, "0.0.0.0", PORT, held)
    client = held.enter_context(lab.stranger.dial(V4, PORT, timeout=PATIENCE))
    found = apply_to(backend, lab.node, wall(lab.node, WALLED))
    assert {client.getsockname()} == ends(found)
    assert errno.ECONNRESET == ending(client)
    assert errno.ECONNABORTED == ending(door.accept())


@pytest.mark.parametrize("who", ["the stranger", "the server"])
def test_a_connection_that_is_half_closed_is_reset(
    lab: Lab, backend: Nftables, held: ExitStack, who: str
) -> None:
    """In CLOSE_WAIT and in FIN_WAIT2 one direction still carries data."""
    door = Door(lab.node, "0.0.0.0", PORT, held)
    client = held.enter_context(lab.stranger.dial(V4, PORT, timeout=PATIENCE))
    server = door.accept()
    (client if who == "the stranger" else server).shutdown(socket.SHUT_WR)
    expected = "CLOSE-WAIT" if who == "the stranger" else "FIN-WAIT-2"
    eventually(lambda: states(lab.node) == [expected], expected)
    found = apply_to(backend, lab.node, wall(lab.node, WALLED))
    assert {client.getsockname()} == ends(found)
    assert [] == states(lab.node)


def test_what_its_process_closed_already_is_left_to_end(
    lab: Lab, backend: Nftables, held: ExitStack
) -> None:
    """A reset of such a socket made it stay for ever on kernels before 6.11."""
    door = Door(lab.node, "0.0.0.0", PORT, held)
    held.enter_context(lab.stranger.dial(V4, PORT, timeout=PATIENCE))
    door.accept().close()
    eventually(lambda: states(lab.node) == ["FIN-WAIT-2"], "the server's end is closed")
    assert Severed() == apply_to(backend, lab.node, wall(lab.node, WALLED))


def test_an_outbound_connection_from_a_walled_port_meets_its_rule(
    lab: Lab, backend: Nftables, held: ExitStack
) -> None:
    """Where a process binds a listener's port to go out, the answers come to that port."""
    lab.stranger.listen("0.0.0.0", 9000)
    made = held.enter_context(lab.node.open_socket(socket.AF_INET, socket.SOCK_STREAM))
    made.bind((V4, PORT))
    made.connect((STRANGER[0], 9000))
    found = apply_to(backend, lab.node, wall(lab.node, WALLED))
    assert {(STRANGER[0], 9000)} == ends(found)
    assert errno.ECONNABORTED == ending(made)


def test_a_namespace_that_is_gone_is_an_error(lab: Lab) -> None:
    """The caller knows best whether it should be there."""
    with pytest.raises(FileNotFoundError):
        sever("/run/netns/vwgone", wall(lab.node, WALLED))
