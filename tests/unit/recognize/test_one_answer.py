"""One answer for the same sockets: whatever was seen of births, stored of them, lost, or seen late.

Every recording is replayed as a later daemon sees it (titles where command lines were, no first
parents, queues where backlogs were), with the facts that an earlier daemon stored, with some of
them, and step by step.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from functools import cache

import pytest

from tests.unit.recognize.test_open_world import (
    LIVING,
    NAMES,
    audiences,
    found,
    node_of,
    redacted,
    without_backlogs,
)
from vllmwall.linux.wire import Fit, decode, encode
from vllmwall.model import Listener, Node, Process
from vllmwall.observe.births import Birth
from vllmwall.recognize import recognize

ALL = (*NAMES, *LIVING)
SEEDS = range(3)
STEPS = 4


def seen_late(process: Process) -> Process:
    """As a later daemon reads it, which takes what it reads for the command line at exec."""
    was_retitled = process.exec_argv not in (None, process.argv)
    return replace(
        process,
        exec_argv=process.argv,
        env={} if was_retitled else process.env,
        birth_ppid=process.ppid,
        remembered=None,
    )


def late(node: Node) -> Node:
    """What can be read at any time."""
    processes = {pid: seen_late(one) for pid, one in node.processes.items()}
    return without_backlogs(replace(node, processes=processes))


def stored(process: Process) -> Birth:
    """Its birth, as it comes back from the file."""
    live = replace(process, exec_argv=process.exec_argv or process.argv)
    birth = Birth.of(live, (process.start_time, 1)).without_secrets()
    return decode(Birth, json.loads(json.dumps(encode(birth))), Fit.WHOLE)


def recalled(node: Node, dice: random.Random | None = None) -> Node:
    """What a later daemon knows from the file. With ``dice`` half of the facts are lost."""

    def is_there() -> bool:
        return dice is None or dice.random() < 0.5

    def backlog_of(one: Listener) -> int | None:
        return asked.get((one.namespace, one.inode, one.port)) if is_there() else None

    asked = {(one.namespace, one.inode, one.port): one.backlog for one in node.listeners}
    now = late(node)
    processes: dict[int, Process] = {}
    for pid, one in sorted(now.processes.items()):
        processes[pid] = one
        if is_there():
            birth = stored(node.processes[pid])
            known = replace(one, birth_ppid=birth.parent)
            processes[pid] = birth.restored(known, processes.get(one.ppid))
    listeners = tuple(replace(one, backlog=backlog_of(one)) for one in now.listeners)
    return replace(now, processes=processes, listeners=listeners)


def step_by_step(node: Node, dice: random.Random) -> Node:
    """The node after passes that saw more and more of it, and remembered what they made of it."""
    listeners = list(node.listeners)
    dice.shuffle(listeners)
    remembered = dict.fromkeys(node.processes, None)
    for step in range(STEPS):
        there = tuple(listeners[: len(listeners) * step // STEPS])
        owners = {pid for one in there for pid in one.pids}
        blank = {"threads": {}, "libraries": None}
        processes = {
            pid: replace(one, remembered=remembered[pid], **({} if pid in owners else blank))
            for pid, one in node.processes.items()
            if pid in owners or dice.random() < (step + 1) / STEPS
        }
        known = recognize(replace(node, processes=processes, listeners=there))
        for workload in known.workloads:
            remembered |= dict.fromkeys(workload.pids, workload.stack)
    processes = {
        pid: replace(one, remembered=remembered[pid]) for pid, one in node.processes.items()
    }
    return replace(node, processes=processes)


@cache
def answer(name: str) -> dict[tuple[str, str, int], str]:
    """The audiences that a daemon finds that has seen everything."""
    return audiences(node_of(name))


@pytest.mark.parametrize("name", ALL)
def test_a_later_daemon_gives_the_same_answer(name: str) -> None:
    """It knows nothing of births."""
    assert audiences(late(node_of(name))) == answer(name)


@pytest.mark.parametrize("name", ALL)
def test_facts_from_the_file_are_as_good_as_those_seen(name: str) -> None:
    """Not the audience only: every role is the same."""
    node = node_of(name)
    assert found(recalled(node)) == found(node)


@pytest.mark.parametrize("name", ALL)
def test_facts_are_stored_as_they_were_recalled(name: str) -> None:
    """By the second daemon for the third one: nothing is worn off."""
    node = node_of(name)
    assert [stored(one) for one in recalled(node).processes.values()] == [
        stored(one) for _, one in sorted(node.processes.items())
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ALL)
def test_whatever_is_lost_nothing_opens_or_closes(name: str, seed: int) -> None:
    """Some processes' facts came back, and some listeners' backlogs."""
    assert audiences(recalled(node_of(name), random.Random(seed))) == answer(name)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ALL)
def test_the_order_of_events_decides_nothing(name: str, seed: int) -> None:
    """What earlier passes took a process for gives way to what is read now."""
    dice = random.Random(seed)
    assert audiences(step_by_step(node_of(name), dice)) == answer(name)
    assert audiences(step_by_step(late(node_of(name)), dice)) == answer(name)


@pytest.mark.parametrize("name", ALL)
def test_a_snapshot_gives_the_same_answer(name: str) -> None:
    """What people attach to a report can be argued about."""
    assert audiences(redacted(late(node_of(name)))) == answer(name)
