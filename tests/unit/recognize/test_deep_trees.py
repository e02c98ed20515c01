"""A user's deep tree of processes, or his many sockets: judged right, and in few steps."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.recognize.node_builder import node, process, tcp
from vllmwall.model import Node, Stack
from vllmwall.recognize import recognize
from vllmwall.recognize.memo import Memo
from vllmwall.recognize.ownership import owned_by
from vllmwall.recognize.process_tree import Ancestry, ancestors, group, masters, parents_of
from vllmwall.recognize.stack_rules import CHILD, Claim

DEEP, SHARED, FIRST = 600, 20, 1000


class Counted(Mapping[int, int]):
    """Counts how often a parent is looked up."""

    def __init__(self, content: Mapping[int, int]) -> None:
        self._content, self.steps = content, 0

    def __getitem__(self, pid: int) -> int:
        self.steps += 1
        return self._content[pid]

    def __iter__(self) -> Iterator[int]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)


def chain() -> tuple[Node, Counted, dict[int, Claim]]:
    """Each process is the child of the one before; all hold all sockets, and the lower half is
    claimed."""
    pids = range(FIRST, FIRST + DEEP)
    tree = [process(pid, "python3 x.py", max(pid - 1, 1) if pid > FIRST else 1) for pid in pids]
    found = node(*tree, *(tcp(port, "0.0.0.0", *pids) for port in range(20000, 20000 + SHARED)))
    claims = {pid: Claim(Stack.VLLM, CHILD) for pid in pids[DEEP // 2 :]}
    return found, Counted(parents_of(found.processes)), claims


def test_masters_are_found_in_few_steps() -> None:
    """Not in a step for each pair of processes and each socket."""
    found, parents, claims = chain()
    above = masters(found, parents, claims)
    assert set(range(FIRST, FIRST + DEEP // 2)) == above.keys()
    assert parents.steps <= 2 * DEEP


def test_owners_and_members_are_found_in_few_steps() -> None:
    """The same of what tells whose a socket is."""
    found, parents, claims = chain()
    members = group(found, parents, claims, Memo())
    assert list(found.listeners) == owned_by(found, parents, members)  # leaked from above
    assert parents.steps <= 8 * DEEP


@given(st.lists(st.integers(0, 40), min_size=2, max_size=40), st.data())
def test_what_is_above_is_what_climbing_finds(above: list[int], data: st.DataObject) -> None:
    """In any forest; the parent of each has a smaller number."""
    parents = {pid: parent % pid for pid, parent in enumerate(above, 1)}
    pids = data.draw(st.sets(st.sampled_from(sorted(parents)), min_size=1))
    ancestry = Ancestry(pids, parents)
    for pid in pids:
        line = list(ancestors(pid, parents))
        assert len(line) == ancestry.depth(pid)
        for other in parents:
            assert (other in line) is (ancestry.first_below(other, [pid]) == pid)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_ends(length: int) -> None:
    """Observation can race: parents that were read at different times may make one."""
    parents = {pid: pid % length + 1 for pid in range(1, length + 1)}
    assert length - 1 == Ancestry([1], parents).depth(1)
    assert length == Ancestry([7, 1], {**parents, 7: 1}).depth(7)


MANY = 300
PROGRAMS = {
    "haproxy": ("/usr/sbin/haproxy", "/opt/ray/raylet"),
    "sglang": ("python3 -m sglang.launch_server --port 30000", "bash"),
    "ray": ("python3 -m ray.dashboard.agent", "/opt/ray/raylet"),
    "vllm": ("python3 /opt/bin/vllm serve m", "bash"),
    "torch": ("python3 /opt/bin/torchrun x.py", "bash"),
}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_many_sockets_of_one_process_cost_no_pair_each(kind: str) -> None:
    """Twice as many sockets cost twice as many steps."""
    command, above = PROGRAMS[kind]

    def steps(number: int) -> int:
        opened = [tcp(20000 + one, "0.0.0.0", 11, backlog=128) for one in range(number)]
        tree = node(process(10, above), process(11, command, 10), *opened)
        seen = Counter[str]()
        sys.settrace(lambda *_: lambda _frame, event, _: seen.update([event]))
        try:
            recognize(tree)
        finally:
            sys.settrace(None)
        return seen["line"]

    steps(1)  # what is remembered for good
    assert steps(2 * MANY) < 2.5 * steps(MANY)
