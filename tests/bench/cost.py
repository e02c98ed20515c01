"""The daemon's cost: CPU while idle and under load, and memory.

Method: the kernel's CPU clock of the process (clock_getcpuclockid(3)), in nanoseconds, including
threads that have ended. The daemon sees all processes of the machine, so other load counts too. The
note has the number of processes that were started meanwhile.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench.programs import NOTHING, PYTHON_NOTHING, Conversation, built
from tests.bench.rows import Goal, Row
from tests.bench.stage import Stage, next_port
from tests.support.lab import PEER, Host

PART = "cost"
_POLLER = "1 s poller + iptables"
_STORM = 1000  # execs a second
_SETTLED = 1.0  # seconds after the start that are not counted


@dataclass(frozen=True)
class Cost:
    """CPU in percent of a core, memory in MB (10^6 bytes), processes started on the machine."""

    percent: float
    resident: float
    anonymous: float
    started: int


def measure(stage: Stage) -> Iterator[Row]:
    """Idle CPU, memory, and CPU under many execs."""
    stage.progress(f"{PART}: idle poller")
    with Conversation(stage.lab.node, _poller_command()) as poller:
        theirs = _cost(poller.pid, stage.scale.idle)
    with stage.daemon() as daemon, stage.rank() as rank:
        assert daemon.process is not None
        rank.ask(f"open {next_port()}")
        stage.progress(f"{PART}: idle daemon")
        ours = _cost(daemon.process.pid, stage.scale.idle)
        loads = {name: _under_storm(stage, daemon.process.pid, name) for name in _PROGRAMS}
    yield from _idle_rows(ours, theirs, stage.scale.idle)
    for name, load in loads.items():
        yield Row(PART, f"CPU under {_STORM:,} execs/s, {_PROGRAMS[name]}", load[0], "% of a core",
                  note=f"{load[1]:,.0f} execs/s")  # fmt: skip
    yield _exec_rate(stage)


_PROGRAMS = {NOTHING: "any program", PYTHON_NOTHING: "named like Python"}


def _poller_command() -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("poller.py")), "iptables", PEER[0]]


def _idle_rows(ours: Cost, theirs: Cost, seconds: float) -> Iterator[Row]:
    note = f"{seconds:g} s; {ours.started} processes started on the machine meanwhile"
    yield Row(PART, "idle CPU", ours.percent, "% of a core", _POLLER, theirs.percent,
              goal=Goal("≤", 0.1), note=note)  # fmt: skip
    yield Row(PART, "memory, resident", ours.resident, "MB", _POLLER, theirs.resident,
              goal=Goal("≤", 40), note="RSS, including shared libraries")  # fmt: skip
    yield Row(PART, "memory, anonymous", ours.anonymous, "MB", _POLLER, theirs.anonymous)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far: MAKE_PROCESS_CPUCLOCK, linux/posix-timers.h."""
    return time.clock_gettime((~pid << 3) | 2)


def _cost(pid: int, seconds: float) -> Cost:
    time.sleep(_SETTLED)
    processes, cpu, begun = _processes_started(), cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    percent = 100 * (cpu_seconds(pid) - cpu) / (time.monotonic() - begun)
    found = memory(Path(f"/proc/{pid}/smaps_rollup").read_text())
    started = _processes_started() - processes
    return Cost(percent, found["Rss"], found["Anonymous"], started)


def memory(smaps: str) -> dict[str, float]:
    """The fields of smaps_rollup in MB."""
    fields = (line.split() for line in smaps.splitlines()[1:])
    return {name.rstrip(":"): int(kilobytes) * 1024 / 1e6 for name, kilobytes, *_ in fields}


def _processes_started() -> int:
    lines = Path("/proc/stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("processes"))


def _under_storm(stage: Stage, pid: int, program: str) -> tuple[float, float]:
    """The daemon's CPU in percent of a core, and the rate of execs per second."""
    stage.progress(f"{PART}: {_STORM} execs a second of {program}")
    cpu, begun = cpu_seconds(pid), time.monotonic()
    rate = _execs(stage.lab.node, program, _STORM, stage.scale.storm)
    percent = 100 * (cpu_seconds(pid) - cpu) / (time.monotonic() - begun)
    return percent, rate


def _execs(host: Host, program: str, per_second: int, seconds: float) -> float:
    argv = [str(built("execs")), str(built(program)), str(per_second), str(seconds)]
    done, nanoseconds = host.run(argv, timeout=seconds + 30).stdout.split()
    return int(done) / int(nanoseconds) * 1e9


def _exec_rate(stage: Stage) -> Row:
    """Execs per second on one core, with the daemon and without it."""
    beside: list[float] = []
    without: list[float] = []
    for number in range(stage.scale.storms):
        stage.progress(f"{PART}: execs with and without the daemon, {number + 1}")
        for rates, context in ((without, contextlib.nullcontext()), (beside, stage.daemon())):
            with context:
                rates.append(_execs(stage.lab.node, NOTHING, 0, stage.scale.storm))
    ratio = median(one / two for one, two in zip(beside, without, strict=True))
    return Row(PART, "execs by one core, daemon running", median(beside), "1/s", "no daemon",
               median(without), ratio)  # fmt: skip
