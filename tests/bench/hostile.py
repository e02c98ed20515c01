"""The cost of a hostile user: memory, the time that others' ports are open, root's questions.

Method: one attack at a time, by a user without rights, while a workload of another user listens as
in `tests.bench.reaction`, and root asks for the status. The memory is the daemon's peak (VmHWM).
The longest stall is the longest time that the loop left one of those ports open. After each attack
the daemon is started again beside it, until it answers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tests.bench.commits import Watch
from tests.bench.programs import CROWD, PYTHON_NOTHING, built
from tests.bench.reaction import listen_once
from tests.bench.rows import Goal, Row, number, percentile
from tests.bench.stage import Stage
from tests.support.attacks import (
    ALIKE,
    EXEC_MANY,
    MANY,
    MAPS,
    NAMESPACES,
    ODD,
    SLEEP,
    STORM,
    UNREAD,
)
from tests.support.ending import end_group
from tests.support.guarded import Guarded
from tests.support.hung_mount import USER, as_user, hung_mount
from vllmwall.api.errors import ControlError

PART = "hostile user"
_BEGUN_SECONDS = 2.0
_SECONDS = 7.0  # of listens beside one attack
_ASKED_EVERY = 10  # listens
_FIGURES = (
    ("peak memory", "MB", 96.0),
    ("listen() to rule, p50", "ms", None),
    ("listen() to rule, p99", "ms", 20.0),
    ("longest stall", "ms", 50.0),
    ("root's status, longest", "ms", 200.0),
    ("start to first answer", "s", 2.0),
)


@dataclass(frozen=True)
class _Attack:
    """What runs beside the daemon until it is over."""

    name: str
    commands: Callable[[Guarded], list[list[str]]] = field(default=lambda _: [])


def measure(stage: Stage) -> Iterator[Row]:
    """The six figures of each attack; as a table of their own too."""
    table = Table(title=PART, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("attack")
    for name, unit, goal in _FIGURES:
        limit = f" (≤ {number(goal)})" if goal else ""
        table.add_column(f"{name}, {unit}{limit}", justify="right")
    with hung_mount(stage.folder / "mount") as hung:
        for attack in _attacks(stage, hung):
            figures, note = _attacked(stage, attack)
            table.add_row(attack.name, *("-" if one is None else number(one) for one in figures))
            for (name, unit, goal), value in zip(_FIGURES, figures, strict=True):
                limit = Goal("≤", goal) if goal else None
                yield Row(PART, f"{attack.name}: {name}", value, unit, goal=limit, note=note)
    stage.quiet()
    Console(width=180).print(table)


def _attacks(stage: Stage, hung: Path) -> Iterator[_Attack]:
    words, config = ["ab"] * 100_000, ("vllm", "--config")
    deep, merges = _folder(stage, "deep"), _folder(stage, "yaml") / "c.yaml"
    merges.write_text(ODD["merges"])
    yield _Attack("nothing")
    yield _always("60 forks, long command line", _python(MANY, *words))
    yield _always("40 long command lines", _python(EXEC_MANY, *words))
    yield _always("60,000 mapped files", _python(MAPS, str(deep), "vllm"))
    yield _always("YAML merges", *[_python(SLEEP, *config, str(merges))] * 8)
    yield _always("hung mount", *[_python(SLEEP, *config, str(hung))] * 8)
    crowd = str(built(CROWD))
    yield _always("3,000 workloads", as_user([crowd, "3000", "1"]))
    claimed = ["env", "RANK=0", "WORLD_SIZE=2", "MASTER_ADDR=192.0.2.1", "MASTER_PORT=29500"]
    yield _always("a workload of 3,000", as_user([*claimed, crowd, "3000", "1"]))
    yield _always("2,000 listen() and close()/s", _python(STORM))
    execs = [str(built("execs")), str(built(PYTHON_NOTHING)), "1000", "600"]
    yield _always("1,000 execs/s", as_user(execs))
    yield _always("200 namespaces made and ended", _python(NAMESPACES))
    yield _always("4,000 connections alike", as_user([*claimed, sys.executable, "-c", ALIKE]))
    yield _Attack("64 KiB of snapshot", partial(_asking, "snapshot", 2826))
    yield _Attack("3,000 plan", partial(_asking, "plan", 3000))
    yield _Attack("300 status, unread", partial(_asking, "status", 300))


def _always(name: str, *commands: list[str]) -> _Attack:
    return _Attack(name, lambda _: list(commands))


def _asking(command: str, times: int, daemon: Guarded) -> list[list[str]]:
    socket = daemon.runtime / "control.sock"
    os.chown(socket, 0, USER)
    return [_python(UNREAD, str(socket), command, str(times))]


def _python(code: str, *words: str) -> list[str]:
    return as_user([sys.executable, "-c", code, *words])


def _folder(stage: Stage, name: str) -> Path:
    made = stage.folder / name
    made.mkdir()
    made.chmod(0o777)
    return made


def _attacked(stage: Stage, attack: _Attack) -> tuple[list[float | None], str]:
    """The figures, in their order, and how many listens they are of."""
    stage.progress(f"{PART}: {attack.name}")
    took, asked = list[float | None](), list[float | None]()
    with stage.daemon() as daemon, Watch(stage.lab.node) as watch, stage.rank() as rank:
        daemon.runtime.chmod(0o755)
        with _running(stage, attack.commands(daemon)):
            time.sleep(_BEGUN_SECONDS)
            ends = time.monotonic() + _SECONDS
            while time.monotonic() < ends:
                took.append(listen_once(rank, watch))
                if len(took) % _ASKED_EVERY == 1:
                    asked.append(_timed(partial(daemon.ask, "status")))
            peak = _peak(daemon)
            daemon.stop()
            started = _timed(daemon.start)
    closed = sorted(one for one in took if one is not None)
    open_still = len(took) - len(closed)
    middle, most = (percentile(closed, 50), percentile(closed, 99)) if closed else (None, None)
    longest = None if open_still else max(closed, default=None)
    answered = [one * 1000 for one in asked if one is not None]
    slowest = max(answered) if len(answered) == len(asked) else None
    figures = [peak, middle, None if open_still else most, longest, slowest, started]
    return figures, f"{len(took)} listens, {open_still} without a rule"


def _timed(what: Callable[[], object]) -> float | None:
    """In seconds; None: no answer."""
    begun = time.monotonic()
    try:
        what()
    except (ControlError, AssertionError):
        return None
    return time.monotonic() - begun


@contextmanager
def _running(stage: Stage, attacks: list[list[str]]) -> Iterator[None]:
    with ExitStack() as stack:
        for argv in attacks:
            started: subprocess.Popen[str] = stage.lab.node.popen(argv)
            stack.callback(end_group, started)
        yield


def _peak(daemon: Guarded) -> float:
    assert daemon.process is not None
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6
