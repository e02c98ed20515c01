"""A guard looks at the cgroup that a socket was made in, and at the moment that it listens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.programs import RANK, Conversation, built
from tests.support.cgroups import inside
from tests.support.guarded import Guarded, Program, eventually, guarded
from tests.support.guarding import (
    PORT,
    asleep,
    number_of,
    numbers,
    refuses,
    unit,
    wait_for_guard,
    wait_for_no_guard,
)
from tests.support.lab import Lab

LISTENS = 40
RULES_OF_OTHERS = 3000


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(lab, tmp_path) as found:
        yield found


def move(program: Program, folder: Path) -> None:
    """Put a running process into another cgroup."""
    (folder / "cgroup.procs").write_text(str(program._process.pid))


def test_a_socket_that_is_older_than_its_processs_cgroup(node: Guarded) -> None:
    """The guard does not know it, so its own rule keeps it closed; later sockets are guarded."""
    rank = node.rank()
    rank.open("tcp", "0.0.0.0", PORT)
    eventually(lambda: refuses(node), "the listener's rule", node.log)
    node.settled()
    with unit() as cgroup:
        move(rank, cgroup)
        node.ask("reload")
        assert number_of(cgroup) in numbers(node)
        assert refuses(node)
        with asleep(node):
            rank.open("tcp", "0.0.0.0", PORT + 1)
            assert refuses(node, PORT + 1)


def test_a_socket_that_stays_when_its_process_is_moved_out(node: Guarded) -> None:
    """The guard goes with the cgroup's last workload; what it closed stays closed by rules."""
    with unit(kind="scope") as cgroup, unit(kind="slice") as shared:
        rank = node.rank(cgroup)
        wait_for_guard(node, cgroup)
        rank.open("tcp", "0.0.0.0", PORT)
        node.settled()
        move(rank, shared)
        rank.open("tcp", "0.0.0.0", PORT + 1)
        wait_for_no_guard(node, cgroup)
        eventually(lambda: refuses(node, PORT + 1), "the listener's rule", node.log)
        assert refuses(node)
        assert node.ask("status")["safe"] is True


def test_no_stranger_slips_in_while_a_port_opens(node: Guarded) -> None:
    """A SYN that finds no socket at the guard may find one at TCP, a moment later: so the wall
    answers it. The rules of others behind ours make the moment long.
    """
    slow = "\n".join(["ip saddr 192.0.2.99 drop"] * RULES_OF_OTHERS)
    table = (
        f"table inet slow {{\nchain input {{\ntype filter hook input priority 10;\n{slow}\n}}\n}}"
    )
    node.lab.node.run(["nft", "-f", "-"], stdin=table)
    env = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "192.0.2.1", "MASTER_PORT": "29500"}
    with unit() as cgroup:
        workload = Conversation(node.lab.node, inside(cgroup, [str(built(RANK))]), env)
        with workload, Conversation(node.lab.stranger, [str(built("hammer"))]) as hammer:
            wait_for_guard(node, cgroup)
            with asleep(node):
                met = [_listen(workload, hammer, node, PORT + n) for n in range(LISTENS)]
    assert all(attempts > 100 for attempts, _ in met)
    assert 0 == sum(accepted for _, accepted in met)


def _listen(workload: Conversation, hammer: Conversation, node: Guarded, port: int) -> list[int]:
    """Open a port under the hammer: its attempts, and the connections that were accepted."""
    assert "on" == hammer.ask(f"{node.lab.node.ipv4} {port}")
    workload.ask(f"open {port}")
    attempts = int(hammer.ask("").split()[0])
    return [attempts, int(workload.ask("close").split()[0])]
