"""Every live recording, and copies of them in which incidental values are changed or missing.

A recording is a snapshot with one key more, ``roles``: each listener's role by its inode.
Recognition never sees that key.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from vllmwall.model import Listener, Node, Process, Proto, Role
from vllmwall.observe.snapshot import dump, load, read
from vllmwall.recognize import recognize

FOLDER = Path(__file__).parents[2] / "recordings"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
UNCLAIMED = "unclaimed"

# The stack of the outermost process, from the scenario's name: what a person would say.
STACKS = {
    "ai": "dynamo", "lmcache": "lmcache", "lmdeploy": "lmdeploy", "mooncake": "mooncake",
    "nccl": "nccl", "nixl": "nixl", "ray": "ray", "sglang": "sglang", "strace": "torch",
    "torch": "torch", "torchrun": "torch", "vllm": "vllm",
}  # fmt: skip


@cache
def node_of(name: str) -> Node:
    """The recording as a node."""
    return load(FOLDER / f"{name}.json")


@cache
def truth(name: str) -> dict[int, str]:
    """The recorded role of each socket, by its inode."""
    content = json.loads((FOLDER / f"{name}.json").read_text())
    roles = {int(inode): role for inode, role in content["roles"].items()}
    assert sorted(roles) == sorted(one["inode"] for one in content["listeners"])
    return roles


def found(node: Node) -> dict[int, str]:
    """The recognized role of each socket."""
    recognition = recognize(node)
    roles = {one.inode: UNCLAIMED for one in recognition.unclaimed}
    for workload in recognition.workloads:
        roles |= {one.listener.inode: one.label.role.value for one in workload.listeners}
    return roles


@pytest.mark.parametrize("name", NAMES)
def test_every_listener_of_a_recording_has_its_role(name: str) -> None:
    """Each recorded socket is claimed and called what it was seen to be."""
    assert found(node_of(name)) == truth(name)


@pytest.mark.parametrize("name", NAMES)
def test_workload_of_a_recording_is_found(name: str) -> None:
    """The scenario's stack is there, every process belongs to it, and the root lives."""
    node = node_of(name)
    recognition = recognize(node)
    assert {one.stack.value for one in recognition.workloads} == {STACKS[name.partition("-")[0]]}
    members = [pid for one in recognition.workloads for pid in one.pids]
    assert sorted(members) == sorted(node.processes)
    assert all(node.processes[one.id.root_pid].alive for one in recognition.workloads)


@pytest.mark.parametrize("name", NAMES)
def test_every_label_has_evidence_and_confidence(name: str) -> None:
    """No role without a reason; an ``api`` has at least two of different kinds."""
    for workload in recognize(node_of(name)).workloads:
        for one in workload.listeners:
            assert one.label.evidence
            assert 0 < one.label.confidence <= 1
            if one.label.role is Role.API:
                assert len({evidence.kind for evidence in one.label.evidence}) >= 2


@pytest.mark.parametrize("name", NAMES)
def test_snapshot_of_a_recording_is_recognized_alike(name: str) -> None:
    """Redaction takes nothing away that recognition reads."""
    node = node_of(name)
    again = read(json.dumps(dump(node, host_facts={})))
    assert found(again) == found(node)
    pairs = zip(recognize(node).workloads, recognize(again).workloads, strict=True)
    for before, after in pairs:
        assert (before.stack, before.name, before.id) == (after.stack, after.name, after.id)
        assert before.pids == after.pids


def test_totals(record_property: Callable[[str, object], None]) -> None:
    """All listeners of all recordings are right; ``-s`` prints the count."""
    results = [(found(node_of(name)), truth(name)) for name in NAMES]
    right = sum(roles[i] == role for roles, real in results for i, role in real.items())
    total = sum(len(real) for _, real in results)
    whole = sum(roles == real for roles, real in results)
    record_property("listeners", f"{right}/{total}")
    print(f"\nrecordings {whole}/{len(NAMES)}, listeners {right}/{total}")
    assert (right, whole) == (total, len(NAMES))


# --- copies with other values ----------------------------------------------------------------

DEFAULTS = {
    5557, 5558, 5600, 6379, 8000, 8265, 10001, 29000, 29500, 30000, 44217, 44227, 52365,
}  # fmt: skip
"""Ports that are defaults of the software, and are on no command line."""

Change = Callable[[Node], Node]


def _listeners(node: Node, change: Callable[[Listener], Listener]) -> Node:
    return replace(node, listeners=tuple(change(one) for one in node.listeners))


def _processes(node: Node, change: Callable[[Process], Process]) -> Node:
    return replace(node, processes={pid: change(one) for pid, one in node.processes.items()})


def shift_ports(node: Node) -> Node:
    """Every random port moves by one; what a command line names stays."""
    words = " ".join(
        word for one in node.processes.values() for word in (*one.argv, *(one.exec_argv or ()))
    )

    def change(one: Listener) -> Listener:
        fixed = one.port in DEFAULTS or str(one.port) in words or not one.port
        return one if fixed else replace(one, port=one.port + 1)

    return _listeners(node, change)


def rename_paths(node: Node) -> Node:
    """Other directories, other models, other hosts' folders."""

    def word(text: str) -> str:
        text = text.replace("/opt/lab", "/srv/team").replace("./tiny", "org/Llama-3-8B")
        return text.replace("survey", "jobs").replace("10.78.0.", "192.168.7.")

    def change(one: Process) -> Process:
        started = one.exec_argv
        return replace(
            one,
            argv=tuple(word(text) for text in one.argv),
            exe=word(one.exe),
            exec_argv=None if started is None else tuple(word(text) for text in started),
        )

    renamed = _processes(node, change)
    return _listeners(renamed, lambda one: replace(one, path=word(one.path)))


def renumber(node: Node) -> Node:
    """Other pids, in another order."""
    pids = {pid for one in node.processes.values() for pid in (one.pid, one.ppid)}
    pids |= {one.birth_ppid or 0 for one in node.processes.values()}
    shuffled = sorted(pids - {0, 1})
    random.Random(7).shuffle(shuffled)
    new = {0: 0, 1: 1} | {pid: 100_000 + place for place, pid in enumerate(shuffled)}

    def change(one: Process) -> Process:
        birth = None if one.birth_ppid is None else new[one.birth_ppid]
        return replace(one, pid=new[one.pid], ppid=new[one.ppid], birth_ppid=birth)

    return Node(
        {new[pid]: change(one) for pid, one in node.processes.items()},
        tuple(replace(one, pids=tuple(new[p] for p in one.pids)) for one in node.listeners),
    )


@pytest.mark.parametrize("change", [shift_ports, rename_paths, renumber])
@pytest.mark.parametrize("name", NAMES)
def test_incidental_values_are_no_keys(name: str, change: Change) -> None:
    """Random ports, paths, models and pids change nothing."""
    assert found(change(node_of(name))) == truth(name)


def as_sock_diag_shows(somaxconn: int) -> Change:
    """No event told the backlog: only the queue, cut to somaxconn, is known."""

    def change(one: Listener) -> Listener:
        if one.backlog is None:
            return one
        shown = somaxconn if one.backlog < 0 else min(one.backlog, somaxconn)
        return replace(one, backlog=None, queue_limit=shown)

    return lambda node: _listeners(node, change)


def without_backlogs(node: Node) -> Node:
    """Neither events nor sock_diag told a backlog."""
    return _listeners(node, lambda one: replace(one, backlog=None, queue_limit=None))


def without_threads(node: Node) -> Node:
    """Thread names could not be read."""
    return _processes(node, lambda one: replace(one, threads={}))


def without_history(node: Node) -> Node:
    """The daemon started late: nothing is known of exec, nor of dead parents."""
    return _processes(node, lambda one: replace(one, exec_argv=None, birth_ppid=None))


def without_commands(node: Node) -> Node:
    """Every command line is overwritten."""
    return _processes(node, lambda one: replace(one, exec_argv=None, argv=()))


def without_environment(node: Node) -> Node:
    """Every environment is overwritten."""
    return _processes(node, lambda one: replace(one, env={}))


def without_order(node: Node) -> Node:
    """Ages are not known."""
    return _listeners(node, lambda one: replace(one, order=0.0))


MISSING: dict[str, tuple[Change, float]] = {
    "queue only, somaxconn 4096": (as_sock_diag_shows(4096), 0.98),
    "queue only, somaxconn 2048": (as_sock_diag_shows(2048), 0.95),
    "queue only, somaxconn 1024": (as_sock_diag_shows(1024), 0.95),
    "queue only, somaxconn 128": (as_sock_diag_shows(128), 0.95),
    "no backlogs": (without_backlogs, 0.38),
    "no threads": (without_threads, 0.90),
    "no history": (without_history, 0.99),
    "no command lines": (without_commands, 0.90),
    "no environment": (without_environment, 1.0),
    "no order": (without_order, 0.98),
}


@pytest.mark.parametrize("missing", MISSING)
def test_missing_pieces_never_open_a_port(missing: str) -> None:
    """Whatever is missing, no internal listener becomes ``api``; most roles stay right."""
    change, share = MISSING[missing]
    wrong: Counter[tuple[str, str]] = Counter()
    for name in NAMES:
        roles = found(change(node_of(name)))
        wrong.update((role, roles[i]) for i, role in truth(name).items() if roles[i] != role)
    assert not [pair for pair in wrong if pair[1] == Role.API.value]
    total = sum(len(truth(name)) for name in NAMES)
    assert 1 - wrong.total() / total >= share, wrong


@pytest.mark.parametrize("missing", ["no backlogs", "no threads", "no environment", "no order"])
def test_living_apis_survive_a_missing_piece(missing: str) -> None:
    """A server that lives keeps its API while its command line can be read."""
    change, _ = MISSING[missing]
    for name in NAMES:
        if name == "vllm-single-root-killed":
            continue
        roles = found(change(node_of(name)))
        missed = [i for i, role in truth(name).items() if role == "api" != roles[i]]
        assert not missed, name


ALIKE = {"ai-dynamo-1.6.1"}  # tokio opens all its ports, the API among them: one kind


@pytest.mark.parametrize("seed", range(12))
def test_any_listener_on_any_port_stays_internal(seed: int) -> None:
    """Move internal sockets onto the API's port number: their kind still tells."""
    dice = random.Random(seed)
    for name in (one for one in NAMES if one not in ALIKE):
        node, roles = node_of(name), truth(name)
        api = [one.port for one in node.listeners if roles[one.inode] == "api" and one.port]
        if not api:
            continue
        moved = dice.choice(
            [o for o in node.listeners if roles[o.inode] != "api" and o.proto is Proto.TCP]
            or [node.listeners[0]]
        )
        changed = _listeners(
            node, lambda one, m=moved, p=api[0]: replace(one, port=p) if one is m else one
        )
        if roles[moved.inode] != "api":
            assert found(changed)[moved.inode] != "api", (name, moved)
