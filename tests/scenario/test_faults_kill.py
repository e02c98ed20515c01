"""A daemon that is killed at any step of its life: the active wall stays, the next one
goes on.

A step is whatever changes something outside the process (see faults.c). All transactions are
tried and some of the others; with EVERY_STEP in the environment all, which takes minutes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.daemon.test_daemon import TABLES_OF_OTHERS, rules_of_others
from tests.support.cgroups import cgroup
from tests.support.faults import faulty
from tests.support.guarded import PEERS, Guarded, Program, eventually
from tests.support.lab import Host, Lab
from vllmwall.api.errors import ControlError

CLOSED, NEW, FREE, SHELL = 29500, 29501, 29502, 22
OFF = {"VLLMWALL_OWNER": "off"}
_SHORT = 0.15  # seconds; an answer on the lab's link takes one millisecond
_OTHER_FAILSAFE = PEERS + "[host]\nfailsafe = ['tcp/22', 'tcp/23']\n"
TRANSACTIONS = {"FAULT_OF": "transaction"}
_EACH = bool(os.environ.get("EVERY_STEP"))
_numbers = itertools.count()


class Stage:
    """A node with a workload in a unit, other programs' ports and other programs' rules."""

    def __init__(self, lab: Lab, folder: Path, unit: Path) -> None:
        self.lab = lab
        self.node = Guarded(lab, folder, arguments=("--state-dir", str(folder / "state")))
        self.rank: Program = self.node.rank(unit)
        self.rank.open("tcp", "::", CLOSED)
        others = self.node.bystander()
        for port in (FREE, SHELL):
            others.open("tcp", "::", port)
        lab.node.run(["nft", "-f", "-"], stdin=TABLES_OF_OTHERS)
        self.others = rules_of_others(lab)

    def launch(self, text: str, environment: dict[str, str]) -> None:
        """Start a daemon and wait for nothing."""
        self.node.configure(text)
        self.node.environment = environment
        self.node.process = self.node.launch()

    @property
    def is_over(self) -> bool:
        """Whether the daemon has ended."""
        return self.node.process is not None and self.node.process.poll() is not None

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until it holds or the daemon has ended."""
        eventually(lambda: self.is_over or condition(), what, self.node.log)

    def answers(self) -> bool:
        """Whether the first pass is through."""
        with contextlib.suppress(ControlError, OSError):
            return bool(self.node.ask("status")["daemon"]["passes"])  # type: ignore[index]
        return False

    def is_closed(self, port: int) -> bool:
        """To the stranger, over both families."""
        node, stranger = self.lab.node, self.lab.stranger
        return {stranger.connect(at, port, _SHORT) for at in (node.ipv4, node.ipv6)} == {"timeout"}

    def is_open(self, host: Host, port: int) -> bool:
        """To this host."""
        return host.connect(self.lab.node.ipv4, port) == "open"

    def assert_nothing_else_changed(self) -> None:
        """What is none of ours is as it was, and peers come in."""
        assert rules_of_others(self.lab) == self.others
        assert self.is_open(self.lab.peer, CLOSED)
        for port in (FREE, SHELL):
            assert self.is_open(self.lab.stranger, port)

    def assert_converges(self) -> None:
        """A daemon without faults makes everything right, and leaves nothing but its wall."""
        self.launch(PEERS, {})
        eventually(self.answers, "the next daemon answers", self.node.log)
        eventually(self.is_whole, "the next daemon makes it right", self.node.log)
        self.assert_nothing_else_changed()
        assert 0 == self.node.stop()
        assert self.is_closed(CLOSED)
        tables = self.lab.node.run(["nft", "list", "tables"]).stdout.splitlines()
        assert {"inet filter", "ip nat", "ip6 raw", "inet vllmwall"} == {
            one.removeprefix("table ") for one in tables
        }
        self.rank.close("tcp", "::", NEW)

    def is_whole(self) -> bool:
        """By status and by packets."""
        return bool(self.node.ask("status")["safe"]) and all(map(self.is_closed, (CLOSED, NEW)))


@pytest.fixture
def stage(lab: Lab, tmp_path: Path) -> Iterator[Stage]:
    with cgroup(f"/vwtest-{os.getpid()}.slice/vw-kill{next(_numbers)}.service") as unit:
        yield Stage(lab, tmp_path, unit)


def live(stage: Stage, environment: dict[str, str]) -> None:
    """A life of a daemon: start, an event, a reload, a stop; less, if it is killed."""
    stage.launch(PEERS, environment)
    stage.until(stage.answers, "the first pass")
    stage.rank.open("tcp", "::", NEW)
    stage.until(lambda: stage.is_closed(NEW), "the new port is closed")
    stage.node.configure(_OTHER_FAILSAFE)  # a table of other rules: made again, not added to
    with contextlib.suppress(ControlError, OSError):
        stage.node.ask("reload")
    with contextlib.suppress(ProcessLookupError):
        stage.node.signal(signal.SIGTERM)
    stage.until(lambda: False, "it ends")


def killed_at(stage: Stage, step: int, environment: dict[str, str]) -> str:
    """Have a daemon live until this step; what the step was, empty: it lived to its end."""
    seen = stage.node.folder / f"steps{step}"
    live(stage, {**faulty(kill_at=step, steps=seen), **environment})
    assert stage.node.process is not None
    code = stage.node.process.returncode
    assert code in (0, -signal.SIGKILL), stage.node.log.read_text()
    return seen.read_text().splitlines()[-1] if code else ""


def every_step(
    stage: Stage,
    environment: dict[str, str],
    stride: int,
    prepare: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """Kill a daemon at its first step, the next one ``stride`` steps later, and so on."""
    for step in itertools.count(1, 1 if _EACH else stride):
        prepare()
        if not (name := killed_at(stage, step, environment)):
            assert step > 5, "hardly a step was counted"
            return
        yield name
        stage.assert_converges()


@pytest.mark.parametrize(
    ("environment", "stride"),
    [(TRANSACTIONS, 1), ({**OFF, **TRANSACTIONS}, 1), ({}, 4)],
    ids=["owned", "watched", "any"],
)
def test_the_active_wall_stays_whenever_the_daemon_is_killed(
    stage: Stage, environment: dict[str, str], stride: int
) -> None:
    """At every step of start, event, reload and stop; a restart converges."""
    stage.rank.open("tcp", "::", NEW)
    stage.assert_converges()
    for step in every_step(stage, environment, stride):
        print(step)
        assert stage.is_closed(CLOSED), step
        stage.assert_nothing_else_changed()


def test_a_first_start_that_is_killed_closes_nothing_but_the_workload(stage: Stage) -> None:
    """No half wall that shuts out peers, or closes what is not ours; a restart converges."""
    for step in every_step(stage, TRANSACTIONS, 2, lambda: take_down(stage)):
        stage.assert_nothing_else_changed()
        print(step)


def take_down(stage: Stage) -> None:
    """As on a node that never had a wall. Its owner has ended, so anybody may."""
    tables = stage.lab.node.run(["nft", "list", "tables"]).stdout
    if "inet vllmwall\n" in tables:
        stage.lab.node.run(["nft", "delete", "table", "inet", "vllmwall"])
