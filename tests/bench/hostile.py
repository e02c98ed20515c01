"""The cost of a hostile user: for the daemon's memory, and for the ports of others.

Method: one attack at a time, by a user without rights, while a workload of another user listens as
in `tests.bench.reaction`. The memory is the daemon's peak (VmHWM). After each attack the daemon is
started again beside it, until it answers.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.commits import Watch
from tests.bench.reaction import listen_once
from tests.bench.rows import Goal, Row, percentile
from tests.bench.stage import Stage
from tests.support.attacks import EXEC_MANY, MANY, MAPS, ODD, SLEEP
from tests.support.ending import end_group
from tests.support.guarded import Guarded
from tests.support.hung_mount import as_user, hung_mount

PART = "hostile user"
_BEGUN_SECONDS = 3.0


def measure(stage: Stage) -> Iterator[Row]:
    """Memory, the slowest of some listens, and the start, for each attack."""
    yield from _attacked(stage, "nothing", [])
    words = ["ab"] * 100_000
    yield from _attacked(stage, "60 forks, long command line", [_python(MANY, *words)])
    yield from _attacked(stage, "40 long command lines", [_python(EXEC_MANY, *words)])
    deep = _folder(stage, "deep")
    yield from _attacked(stage, "60,000 mapped files", [_python(MAPS, str(deep), "vllm")])
    merges = _folder(stage, "yaml") / "c.yaml"
    merges.write_text(ODD["merges"])
    config = ("vllm", "--config")
    yield from _attacked(stage, "YAML merges", [_python(SLEEP, *config, str(merges))] * 8)
    with hung_mount(stage.folder / "mount") as file:
        yield from _attacked(stage, "hung mount", [_python(SLEEP, *config, str(file))] * 8)


def _python(code: str, *words: str) -> list[str]:
    return as_user([sys.executable, "-c", code, *words])


def _folder(stage: Stage, name: str) -> Path:
    made = stage.folder / name
    made.mkdir()
    made.chmod(0o777)
    return made


def _attacked(stage: Stage, name: str, attacks: list[list[str]]) -> Iterator[Row]:
    stage.progress(f"{PART}: {name}")
    with stage.daemon() as daemon, Watch(stage.lab.node) as watch, stage.rank() as rank:
        with _running(stage, attacks):
            time.sleep(_BEGUN_SECONDS)
            took = [listen_once(rank, watch) for _ in range(stage.scale.reactions)]
            daemon.ask("reload")
            peak = _peak(daemon)
            daemon.stop()
            begun = time.monotonic()
            daemon.start()
            started = time.monotonic() - begun
        closed = [one for one in took if one is not None]
        slowest = percentile(closed, 99) if len(closed) == len(took) else None
        note = f"{len(took)} listens, {len(took) - len(closed)} without a rule"
        yield Row(PART, f"{name}: peak memory", peak, "MB", goal=Goal("≤", 96))
        yield Row(PART, f"{name}: listen() to rule, p99", slowest, "ms", goal=Goal("≤", 20),
                  note=note)  # fmt: skip
        yield Row(PART, f"{name}: start to first answer", started, "s", goal=Goal("≤", 2))


@contextmanager
def _running(stage: Stage, attacks: list[list[str]]) -> Iterator[None]:
    started: list[subprocess.Popen[str]] = []
    try:
        started += [stage.lab.node.popen(argv) for argv in attacks]
        yield
    finally:
        for one in started:
            end_group(one)


def _peak(daemon: Guarded) -> float:
    assert daemon.process is not None
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6
