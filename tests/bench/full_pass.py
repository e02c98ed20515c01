"""A full pass, compared with one ``ss -ltnp`` on the same node in the same run.

Opens listeners in processes that look like ranks, starts sleeping processes until the machine has
enough, and measures both in turn. Changes no rule.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.bench.rows import Goal, Row
from tests.bench.stage import Stage
from vllmwall.decide.walls import decide
from vllmwall.linux.netns import inode_of
from vllmwall.model import Policy, Role
from vllmwall.observe import Observer
from vllmwall.recognize import recognize

PART = "full pass"
_OPENER = """
import socket, sys, time
held = []
for _ in range(int(sys.argv[1])):
    one = socket.socket(); one.bind(("127.0.0.1", 0)); one.listen(); held.append(one)
print("ready", flush=True)
time.sleep(3600)
"""
_OPENERS = 50


def measure(stage: Stage) -> Iterator[Row]:
    """Medians, and the first pass, which has no cached state."""
    scale = stage.scale
    stage.progress(f"{PART}: {scale.processes} processes start")
    with _busy_node(stage):
        full_pass = _passes(stage)
        first = timed(full_pass)
        rounds = [
            (timed(full_pass), timed(lambda: stage.lab.node.call(_ss))) for _ in range(scale.passes)
        ]
    ours, theirs = median(one for one, _ in rounds), median(two for _, two in rounds)
    note = f"{scale.listeners} listeners, {scale.processes} processes, {scale.passes} rounds"
    goal = Goal("≤", 1, "ratio")
    yield Row(PART, "full pass", ours, "ms", "ss -ltnp", theirs, goal=goal, note=note)
    yield Row(PART, "the first one", first, "ms", "ss -ltnp", theirs)


def timed(function: Callable[[], None]) -> float:
    """The duration of one call in milliseconds."""
    begun = time.perf_counter()
    function()
    return (time.perf_counter() - begun) * 1000


def _passes(stage: Stage) -> Callable[[], None]:
    observer = Observer(frozenset({inode_of(stage.lab.node.path)}))
    policy = Policy({Role.API: ("public",)})

    def full_pass() -> None:
        recognition = recognize(observer.observe())
        observer.keep(recognition)
        decide(recognition, policy, ())

    return full_pass


def _ss() -> None:
    subprocess.run(["ss", "-Hltnp"], stdout=subprocess.DEVNULL, check=True)


@contextmanager
def _busy_node(stage: Stage) -> Iterator[None]:
    """A node with many listeners and processes, which end when the context is left."""
    children: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        argv = [sys.executable, "-c", _OPENER, str(stage.scale.listeners // _OPENERS)]
        env = {**os.environ, "RANK": "0", "WORLD_SIZE": "2"}
        env |= {"MASTER_ADDR": stage.lab.node.ipv4, "MASTER_PORT": "29500"}
        for _ in range(_OPENERS):
            children.append(subprocess.Popen(argv, stdout=subprocess.PIPE, env=env))
        there = sum(path.name.isdigit() for path in Path("/proc").iterdir())
        for _ in range(stage.scale.processes - there):
            children.append(subprocess.Popen(["sleep", "3600"], stdout=subprocess.DEVNULL))

    try:
        stage.lab.node.call(start)
        for opener in children[:_OPENERS]:
            assert opener.stdout is not None
            opener.stdout.readline()
        yield
    finally:
        for child in children:
            child.send_signal(signal.SIGKILL)
        for child in children:
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
