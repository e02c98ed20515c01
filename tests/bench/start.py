"""The cost of a start: time until READY=1, memory, and the time of a `status`.

``ready`` is measured from the start of the program to READY=1, which is sent after the first pass.
Everything has real-time priority, so other load on the machine matters little. The baseline is the
same interpreter, started in the same way, that does nothing.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.bench.cost import memory
from tests.bench.layouts import Layout, environment, layouts
from tests.bench.rows import Goal, Row
from tests.bench.stage import Stage
from tests.support.guarded import PEERS

PART = "start"
_NOTHING = "an idle Python"
_WITH = "with the process that reads the configuration"
_URGENT = ("chrt", "--fifo", "1")
_PATIENCE = 60.0  # seconds
_SETTLED = 2.0  # seconds after READY=1, when the pass that looks for old walls is over
_ASKED = 5  # requests to each daemon


@dataclass(frozen=True)
class Start:
    """One start: seconds until READY=1, CPU seconds including child processes, fields of
    smaps_rollup in MB, seconds of each `status`."""

    ready: float
    cpu: float
    memory: dict[str, float]
    status: list[float]


def measure(stage: Stage) -> Iterator[Row]:
    """Rows for both layouts, the package's first."""
    found = list(layouts(stage.folder))
    if len(found) == 1:
        yield Row(PART, "package", None, "", note="not built: make deb")
    for layout in found:
        _start(stage, layout, 0)  # compiles modules
        starts, nothing = [], []
        for number in range(1, stage.scale.starts + 1):
            stage.progress(f"{PART}: {layout.name}, {number}")
            starts.append(_start(stage, layout, number))
            nothing.append(_nothing(stage, layout))
        yield from rows(layout.name, starts, nothing)


def rows(name: str, starts: list[Start], nothing: list[float]) -> Iterator[Row]:
    """Medians. ``nothing``: seconds that an idle interpreter takes to start and end."""
    idle = median(nothing) * 1000
    note = f"{len(starts)} starts"
    ready = median(one.ready for one in starts) * 1000
    yield Row(PART, f"{name}: ready", ready, "ms", _NOTHING, idle, goal=Goal("≤", 600), note=note)
    cpu = median(one.cpu for one in starts) * 1000
    yield Row(PART, f"{name}: ready, CPU", cpu, "ms", note=_WITH)
    status = median(took for one in starts for took in one.status) * 1000
    yield Row(PART, f"{name}: status", status, "ms", _NOTHING, idle, goal=Goal("≤", 200))
    for field, goal in (("Rss", Goal("≤", 40)), ("Anonymous", None)):
        figure = median(one.memory[field] for one in starts)
        word = "resident" if field == "Rss" else "anonymous"
        yield Row(PART, f"{name}: memory, {word}", figure, "MB", goal=goal)


def _start(stage: Stage, layout: Layout, number: int) -> Start:
    folder = stage.folder / f"{layout.name}{number}"
    folder.mkdir(mode=0o755)
    (folder / "vllmwall.toml").write_text(PEERS)
    with _listening(folder / "notify") as notified:
        begun = time.monotonic()
        process = stage.lab.node.popen(
            [*_URGENT, *layout.command, *_arguments(stage, folder)],
            env=environment(NOTIFY_SOCKET=str(folder / "notify")),
            output=folder / "log",
        )
        try:
            while b"READY=1" not in notified.recv(4096):
                pass
            ready, cpu = time.monotonic() - begun, _cpu_with_children(process.pid)
            time.sleep(_SETTLED)
            smaps = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            return Start(ready, cpu, memory(smaps), list(_asked(layout, folder)))
        except TimeoutError:
            raise TimeoutError(f"not ready:\n{(folder / 'log').read_text()}") from None
        finally:
            process.terminate()
            process.wait(timeout=_PATIENCE)
            delete = ["nft", "delete", "table", "inet", "vllmwall"]
            subprocess.run(stage.lab.node.command(delete), check=False, capture_output=True)


def _cpu_with_children(pid: int) -> float:
    """utime, stime, cutime and cstime of proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _arguments(stage: Stage, folder: Path) -> list[str]:
    places = ["--config", str(folder / "vllmwall.toml"), "--runtime-dir", str(folder / "run")]
    return ["daemon", "--log", "json", *places, "--only-namespace", stage.lab.node.path]


def _asked(layout: Layout, folder: Path) -> Iterator[float]:
    """Seconds of each request except the first, which reads from disk."""
    command = [*_URGENT, *layout.command, "--socket", str(folder / "run/control.sock"), "status"]
    for number in range(_ASKED + 1):
        begun = time.monotonic()
        subprocess.run(command, env=environment(), stdout=subprocess.DEVNULL, check=True)
        if number:
            yield time.monotonic() - begun


def _nothing(stage: Stage, layout: Layout) -> float:
    begun = time.monotonic()
    subprocess.run(
        stage.lab.node.command([*_URGENT, *layout.nothing]), env=environment(), check=True
    )
    return time.monotonic() - begun


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """A notify socket like systemd's. Its recv raises TimeoutError after `_PATIENCE`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(_PATIENCE)
        yield listening
