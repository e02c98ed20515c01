"""A memo changes what a recognition costs, and never what it says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import MappingProxyType

import pytest

from tests.unit.recognize.node_builder import node, process, tcp
from tests.unit.recognize.test_recordings import NAMES, node_of
from vllmwall.model import Node, Process, Role
from vllmwall.recognize import claims, recognize
from vllmwall.recognize.memo import Memo, Pauses
from vllmwall.recognize.stack_rules import Candidate

MANY = 200


def crowd() -> Node:
    """Many workloads of one process each."""
    pids = range(1000, 1000 + MANY)
    ranks = [process(pid, f"vllm serve m --port {pid}") for pid in pids]
    return node(*ranks, *(tcp(pid, "0.0.0.0", pid, backlog=2048) for pid in pids))


def changed(found: Node, **fields: object) -> Node:
    """The same with another first process."""
    pid = min(found.processes)
    other = {**found.processes, pid: replace(found.processes[pid], **fields)}
    return replace(found, processes=MappingProxyType(other))


@pytest.mark.parametrize("name", NAMES)
def test_every_recording_is_recognized_alike(name: str) -> None:
    """One after the other with the same memo; then without one of its processes, and without one of
    its listeners."""
    whole, memo = node_of(name), Memo()
    youngest = max(whole.processes)
    fewer = {pid: one for pid, one in whole.processes.items() if pid != youngest}
    for seen in (
        whole,
        whole,
        replace(whole, processes=MappingProxyType(fewer)),
        replace(whole, listeners=whole.listeners[1:]),
        replace(whole, ray_sessions=()),
        whole,
    ):
        assert recognize(seen) == recognize(seen, memo=memo)


def test_what_changed_is_judged_again() -> None:
    """An API is one no longer when its command line names another port."""
    memo, seen = Memo(), crowd()
    first = recognize(seen, memo=memo).workloads[0]
    assert [Role.API] == [one.label.role for one in first.listeners]
    later = changed(seen, exec_argv=("/x/vllm", "serve", "m", "--port", "9"))
    assert Role.API not in [
        one.label.role for one in recognize(later, memo=memo).workloads[0].listeners
    ]


def test_a_neighbour_changes_a_label() -> None:
    """The labels of a process depend on its whole tree: nothing outside the tree is read, and all
    inside it counts."""
    memo = Memo()
    server = process(100, "vllm serve m --port 8000")
    child = process(101, "python3 x.py", 100)
    listener = tcp(8000, "0.0.0.0", 100, backlog=2048)
    for one in (child, replace(child, unread="it waits"), child):
        seen = node(server, one, listener)
        assert recognize(seen) == recognize(seen, memo=memo)


def test_each_process_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in each recognition; and again only the one that changed."""
    judged: Counter[int] = Counter()
    real = claims._claim

    def counting(candidate: Candidate, *rest: object) -> object:
        judged[candidate.process.pid] += 1
        return real(candidate, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(claims, "_claim", counting)
    memo, seen = Memo(), crowd()
    for _ in range(3):
        recognize(seen, memo=memo)
    assert dict.fromkeys(seen.processes, 1) == judged
    recognize(changed(seen, comm="other"), memo=memo)
    assert [min(seen.processes)] == [pid for pid, times in judged.items() if times == 2]


def test_a_process_that_nobody_can_judge_is_named_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its answer is kept too, and the line about it."""

    def failing(candidate: Candidate, *_: object) -> None:
        raise KeyError(candidate.process.pid)

    monkeypatch.setattr(claims, "_claim", failing)
    memo, seen = Memo(), node(process(100, "vllm serve m"))
    problems = [recognize(seen, memo=memo).problems for _ in range(2)]
    assert problems[0] == problems[1] != ()


def test_nothing_is_kept_of_those_who_are_gone() -> None:
    """After two recognitions without them."""
    memo = Memo()
    recognize(crowd(), memo=memo)
    lonely = node(process(5, "vllm serve m"))
    for _ in range(2):
        recognize(lonely, memo=memo)
    kept = (memo.candidates, memo.claims, memo.claims_by_listeners, memo.workloads)
    assert {5} >= {pid for one in kept for pid in (*one._before, *one._now)}


def test_others_get_a_turn_between_steps() -> None:
    """However many processes there are: at least once for 32 of them, and of their listeners."""
    pauses: list[None] = []
    recognize(crowd(), memo=Memo(Pauses(lambda: pauses.append(None))))
    assert len(pauses) >= 2 * MANY // 32


def test_an_equal_value_needs_no_new_answer() -> None:
    """Even where another object has it; a change of it does."""
    memo, one = Memo(), process(100, "vllm serve m")
    first = memo.candidate(one)
    again: Process = replace(one)
    assert again is not one
    assert memo.candidate(again) is first
    assert memo.candidate(replace(one, comm="x")) is not first
