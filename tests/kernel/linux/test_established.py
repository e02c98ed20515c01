"""What the kernel tells of a connection's age, and what it does not."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from tests.support.lab import Lab
from tests.support.severing import lives
from vllmwall.linux import netlink
from vllmwall.linux.established import Established, established

PORT = 29500


def only(lab: Lab) -> Established:
    """The one connection at the port."""

    def read() -> list[Established]:
        with closing(netlink.opened(netlink.SOCK_DIAG)) as diag:
            return list(established(diag, {PORT}))

    (found,) = lab.node.call(read)
    return found


@pytest.mark.parametrize("family", [4, 6])
def test_after_both_ends_have_sent_its_age_is_a_bound(lab: Lab, family: int) -> None:
    """The longer silence: true, and never more than the age."""
    lab.node.listen("::", PORT)
    begun = time.monotonic()
    with lab.peer.dial(lab.node.ipv4 if family == 4 else lab.node.ipv6, PORT) as made:
        assert (0, 0, True) == (only(lab).received, only(lab).sent, only(lab).is_exact)
        time.sleep(1)
        assert only(lab).seconds >= 0.9
        assert lives(made)
        found = only(lab)
        assert (5, 5, False) == (found.received, found.sent, found.is_exact)
        assert found.seconds < time.monotonic() - begun - 0.5, "the silence ended with the echo"


def test_other_ports_are_left_alone(lab: Lab) -> None:
    """The kernel is asked for ours alone."""
    lab.node.listen("::", PORT)
    lab.node.listen("::", PORT + 2)
    with lab.peer.dial(lab.node.ipv4, PORT + 2), lab.peer.dial(lab.node.ipv4, PORT):
        assert PORT == only(lab).connection.local_port
