"""Connections with their state and byte counts, as the kernel reports them."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.support.lab import Lab
from tests.support.severing import lives
from vllmwall.linux import netlink
from vllmwall.linux.connections import Established, established

PORT = 29500


def only(lab: Lab) -> Established:
    """The one connection at the port."""

    def read() -> list[Established]:
        with closing(netlink.opened(netlink.SOCK_DIAG)) as diag:
            return list(established(diag, {PORT}))

    (found,) = lab.node.call(read)
    return found


@pytest.mark.parametrize("family", [4, 6])
def test_bytes_are_counted_in_both_directions(lab: Lab, family: int) -> None:
    """None before the echo, and what was sent once the other end has acknowledged it."""
    lab.node.listen("::", PORT)
    with lab.peer.dial(lab.node.ipv4 if family == 4 else lab.node.ipv6, PORT) as made:
        assert ("established", 0, 0) == (only(lab).state, only(lab).received, only(lab).sent)
        assert lives(made)
        assert (5, 5) == (only(lab).received, only(lab).sent)


def test_other_ports_are_left_alone(lab: Lab) -> None:
    """The kernel is asked for ours alone."""
    lab.node.listen("::", PORT)
    lab.node.listen("::", PORT + 2)
    with lab.peer.dial(lab.node.ipv4, PORT + 2), lab.peer.dial(lab.node.ipv4, PORT):
        assert PORT == only(lab).connection.local_port
