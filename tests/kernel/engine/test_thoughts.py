"""A pass that thinks: ports that others open meanwhile are closed at once, and stay closed."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.guarded import PEERS, Guarded
from tests.support.lab import Lab
from tests.support.reconciling import kept
from vllmwall.engine.event_handlers import follow
from vllmwall.observe.events import ListenEvent

LATE = 29777
MANY = range(9000, 9080)


@pytest.mark.parametrize("whole", [True, False])
def test_a_port_that_opens_meanwhile_is_closed_at_once(
    lab: Lab, tmp_path: Path, *, whole: bool
) -> None:
    """In the middle of a thought about many ports; the end of that thought, which knows nothing of
    it, does not open it again."""
    node = Guarded(lab, tmp_path)
    node.configure(PEERS)
    with kept(node) as keeper:
        rank = node.rank()
        for port in MANY:
            rank.open("tcp", "0.0.0.0", port)
        keeper.full_pass()
        (pid,) = keeper.members
        found: list[str] = []

        def meanwhile() -> None:
            if not found:
                rank.open("tcp", "0.0.0.0", LATE)
                follow(keeper, [ListenEvent(pid, LATE, 128, ip_address("0.0.0.0"))])
                found.append(lab.stranger.connect(lab.node.ipv4, LATE))

        keeper.meanwhile = meanwhile
        if whole:
            keeper.full_pass()
        else:
            keeper.quick_pass()
        assert ["timeout"] == found
        assert "timeout" == lab.stranger.connect(lab.node.ipv4, LATE)
        keeper.quick_pass()
        assert "timeout" == lab.stranger.connect(lab.node.ipv4, LATE)
        assert "open" == lab.peer.connect(lab.node.ipv4, LATE)
