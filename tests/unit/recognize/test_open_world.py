"""Recordings of what people start beside the well-known ways, with the right answers.

A recording has one key more, ``expected``: each listener's role and who may connect. Every one is
also replayed without what only a birth shows, and in other orders: no audience may change.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from vllmwall.model import Listener, Node, Process, Proto
from vllmwall.observe.snapshot import dump, read
from vllmwall.recognize import recognize

RECORDINGS = Path(__file__).parents[2] / "recordings"
FOLDER = RECORDINGS / "open-world"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
OLDER = sorted(path.stem for path in RECORDINGS.glob("*.json"))

Place = tuple[str, str, int]

OTHER_ROLES: dict[tuple[str, int], str] = {
    # judged by hand; our names are more exact than `unknown`, and no audience differs
    ("torchrun-fastapi", 10081): "web",
    ("xinference-local", 9997): "api",
}


def _content(path: Path) -> tuple[Node, list[dict[str, object]]]:
    content = json.loads(path.read_text())
    expected = content.pop("expected", [])
    content.pop("roles", None)
    return read(json.dumps(content)), expected


@cache
def node_of(name: str) -> Node:
    folder = FOLDER if name in NAMES else RECORDINGS
    return _content(folder / f"{name}.json")[0]


def place(listener: Listener) -> Place:
    where = str(listener.plain_address) if listener.address else listener.path
    return listener.proto.value, where, listener.port


def found(node: Node) -> dict[Place, str]:
    """The role of each listener; ``none``: of no workload."""
    recognition = recognize(node)
    roles = {place(one): "none" for one in recognition.unclaimed}
    for workload in recognition.workloads:
        roles |= {place(one.listener): one.label.role.value for one in workload.listeners}
    return roles


def audience(role: str) -> str:
    return {"none": "untouched", "api": "public"}.get(role, "peers")


def audiences(node: Node) -> dict[Place, str]:
    """Who may connect to what can be reached from other hosts."""
    beyond = {place(o) for o in node.listeners if not o.is_loopback and o.proto is not Proto.UNIX}
    return {where: audience(role) for where, role in found(node).items() if where in beyond}


@pytest.mark.parametrize("name", NAMES)
def test_every_listener_has_the_right_role_and_audience(name: str) -> None:
    node, expected = _content(FOLDER / f"{name}.json")
    roles = found(node)
    wanted = {}
    for one in expected:
        key = (str(one["proto"]), plain(str(one["address"])), int(str(one["port"])))
        wanted[key] = OTHER_ROLES.get((name, key[2]), str(one["role"]))
    assert {key: roles[key] for key in wanted} == wanted


def plain(address: str) -> str:
    """As `place` writes it: IPv4 in IPv6 as IPv4."""
    from ipaddress import ip_address

    mapped = getattr(ip_address(address), "ipv4_mapped", None)
    return str(mapped or ip_address(address))


Change = Callable[[Node], Node]


def without_exec(node: Node) -> Node:
    """A daemon that came later: titles where command lines were, no first parents, no memory."""
    old = node.processes.items()
    lost = {"exec_argv": None, "birth_ppid": None, "remembered": None}
    return replace(node, processes={pid: replace(one, **lost) for pid, one in old})


def without_backlogs(node: Node) -> Node:
    """No event told the backlog: sock_diag's queue is left."""

    def change(one: Listener) -> Listener:
        if one.backlog is None or one.queue_limit is not None:
            return replace(one, backlog=None)
        shown = 4096 if one.backlog < 0 else min(one.backlog, 4096)
        return replace(one, backlog=None, queue_limit=shown)

    return replace(node, listeners=tuple(map(change, node.listeners)))


def shuffled(seed: int) -> Change:
    """The same facts, read in another order."""

    def change(node: Node) -> Node:
        dice = random.Random(seed)
        listeners, processes = list(node.listeners), list(node.processes.items())
        dice.shuffle(listeners)
        dice.shuffle(processes)
        return replace(node, listeners=tuple(listeners), processes=dict(processes))

    return change


def remembered_wrong(node: Node) -> Node:
    """An earlier pass took everything for a torch job."""
    from vllmwall.model import Stack

    def change(one: Process) -> Process:
        known = one.libraries is not None
        return replace(one, remembered=Stack.TORCH) if known else one

    return replace(node, processes={pid: change(one) for pid, one in node.processes.items()})


def redacted(node: Node) -> Node:
    """Through a snapshot."""
    return read(json.dumps(dump(node, host_facts={})))


CHANGES: dict[str, Change] = {
    "no exec": without_exec,
    "no backlogs": without_backlogs,
    "neither": lambda node: without_exec(without_backlogs(node)),
    "shuffled 1": shuffled(1),
    "shuffled 2": shuffled(2),
    "neither, shuffled": lambda node: shuffled(3)(without_exec(without_backlogs(node))),
    "remembered wrong": remembered_wrong,
    "redacted": redacted,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", NAMES)
def test_one_answer(name: str, change: str) -> None:
    """What only a birth shows never decides who may connect."""
    node = node_of(name)
    assert audiences(CHANGES[change](node)) == audiences(node)


# A dead owner is known by its birth only.
LIVING = [name for name in OLDER if all(one.alive for one in node_of(name).processes.values())]


@pytest.mark.parametrize("change", ["no exec", "no backlogs", "neither", "shuffled 1"])
@pytest.mark.parametrize("name", LIVING)
def test_one_answer_in_the_older_recordings(name: str, change: str) -> None:
    """No listener changes between public and peers."""
    node = node_of(name)
    assert audiences(CHANGES[change](node)) == audiences(node)


def test_most_roles_are_right_whatever_was_seen() -> None:
    """97 of 100, early and late."""
    for change in ("no exec", "no backlogs", "neither"):
        right = total = 0
        for name in NAMES:
            _, expected = _content(FOLDER / f"{name}.json")
            roles = found(CHANGES[change](node_of(name)))
            for one in expected:
                key = (str(one["proto"]), plain(str(one["address"])), int(str(one["port"])))
                total += 1
                right += roles[key] == one["role"]
        assert right / total >= 0.97, (change, right, total)
