"""Nothing slips in while the wall changes, under a hammer of thousands of packets a second."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.hammer import hammer
from tests.support.lab import Lab
from tests.support.walls import everywhere, wall
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.model import Wall

pytestmark = pytest.mark.serial

PORT = 29500
SECONDS = 3


def _idle() -> None:
    """Change nothing."""


@pytest.fixture
def open_node(lab: Lab) -> Lab:
    """A node that echoes to everybody, which the hammers are seen to notice."""
    lab.node.listen("::", PORT)
    lab.node.listen_udp("::", PORT)
    for proto in ("tcp", "udp"):
        assert hammer(lab.stranger, proto, (lab.node.ipv4, PORT), 0.3, _idle)[1] > 0
    return lab


def _opened(
    lab: Lab, proto: str, address: str, meanwhile: Callable[[], None], least: int = 500
) -> int:
    tried, opened = hammer(lab.stranger, proto, (address, PORT), SECONDS, meanwhile)
    assert tried > least
    return opened


def _cycle(backend: Nftables, path: str, walls: list[Wall]) -> Callable[[], None]:
    """Put up each wall after the other, by its difference to the last."""

    def once() -> None:
        for standing, wanted in zip(walls, [*walls[1:], walls[0]], strict=True):
            backend.apply(path, wanted, standing)

    return once


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_nothing_slips_in_while_the_wall_changes(
    open_node: Lab, backend: Nftables, proto: str, address: str
) -> None:
    """Entries, audiences, notes, groups and peers come and go; the port stays closed."""
    node = open_node.node
    closed = everywhere(PORT, "peers")
    others = [each for port in range(20000, 20100) for each in everywhere(port, "peers")]
    groups = {"monitoring": ["198.51.100.20"]}
    walls = [
        wall(node, closed),
        wall(node, [*closed, *others]),
        wall(node, everywhere(PORT, "monitoring", "peers"), groups=groups),
        wall(node, everywhere(PORT, "node"), peers=["192.0.2.2", "198.51.100.0/28"]),
    ]
    backend.apply(node.path, walls[0], None)
    assert _opened(open_node, proto, address, _cycle(backend, node.path, walls)) == 0


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_nothing_slips_in_while_the_table_is_replaced(
    open_node: Lab, backend: Nftables, proto: str
) -> None:
    """Replacing the whole table is one step: the old wall, then the new one."""
    node = open_node.node
    wanted = wall(node, everywhere(PORT, "peers"))
    backend.apply(node.path, wanted, None)
    replace = lambda: backend.apply(node.path, wanted, None)  # noqa: E731
    assert _opened(open_node, proto, node.ipv4, replace) == 0


SLOW_RULES = "\n".join(f"\t\tudp sport {port} counter" for port in range(1, 1500))
THEIRS = f"""
add table inet theirs
delete table inet theirs
table inet theirs {{
	chain input {{
		type filter hook input priority filter - 10; policy accept;
{SLOW_RULES}
	}}
}}
"""


def test_nothing_slips_in_past_slow_rules_of_others(open_node: Lab, backend: Nftables) -> None:
    """Another program's long chain may come between our old table and our new one: a packet
    then meets the new one before the change, and the old one after it."""
    node = open_node.node
    wanted = wall(node, everywhere(PORT, "peers"))
    backend.apply(node.path, wanted, None)

    def replace() -> None:
        node.run(["nft", "-f", "-"], stdin=THEIRS)  # newer than ours: comes before it
        backend.apply(node.path, wanted, None)

    assert _opened(open_node, "udp", node.ipv4, replace) == 0
