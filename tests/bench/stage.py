"""The benchmark's node: a lab, a daemon, and a workload in a cgroup of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.programs import RANK, Conversation, built
from tests.bench.scale import Scale
from tests.support.guarded import PEERS, Guarded
from tests.support.lab import Host, Lab

PREFIX = "vwbench-"
_PROGRESS_EVERY = 0.2  # seconds between two progress lines
_FIRST_PORT, _PORTS = 20000, 12000  # below the ephemeral range
_ports = itertools.count()
_cgroup_numbers = itertools.count()


@dataclass
class Stage:
    """The environment of a part: a lab, a temporary folder, and the sizes of the run."""

    lab: Lab
    folder: Path
    scale: Scale
    _shown: float = field(default=0.0, repr=False)
    _daemons: Iterator[int] = field(default_factory=itertools.count, repr=False)

    def progress(self, what: str) -> None:
        """Show the current step on a terminal."""
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._shown > _PROGRESS_EVERY:
            self._shown = now
            print(f"\r\033[K  · {what}", end="", file=sys.stderr, flush=True)

    def quiet(self) -> None:
        """Remove the progress line."""
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def daemon(
        self, config: str = PEERS, environment: Mapping[str, str] | None = None
    ) -> Iterator[Guarded]:
        """A daemon on the node with this configuration. Leaving stops it and removes its wall."""
        node = self.lab.node
        found = Guarded(
            self.lab, self.folder / f"daemon{next(self._daemons)}", environment=environment or {}
        )
        found.config.write_text(config)
        try:
            found.start()
            yield found
        finally:
            if found.process is not None and found.process.poll() is None:
                found.stop()
            delete = ["nft", "delete", "table", "inet", "vllmwall"]
            subprocess.run(node.command(delete), check=False, capture_output=True)

    def rank(self, host: Host | None = None, cgroup: Path | None = None) -> Conversation:
        """A workload that listens on command, on the node or ``host``, in a cgroup if given."""
        library = self.folder / "libtorch_cpu.so"
        library.write_bytes(b"not really")
        env = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
        env |= {"MASTER_ADDR": self.lab.node.ipv4, "MASTER_PORT": "29500"}
        env |= {"LIBTORCH": str(library)}
        argv = [str(built(RANK))]
        if cgroup is not None:
            enter = 'echo $$ >"$1" && shift && exec "$@"'
            argv = ["sh", "-c", enter, "sh", str(cgroup / "cgroup.procs"), *argv]
        return Conversation(host or self.lab.node, argv, env)


def next_port() -> int:
    """A port that no part has used yet, so that no earlier rule closes it."""
    return _FIRST_PORT + next(_ports) % _PORTS


@contextlib.contextmanager
def own_cgroup() -> Iterator[Path]:
    """A new scope at the root of the v2 hierarchy. Its processes must end before it is left.

    Raises FileNotFoundError where cgroup2 is not mounted.
    """
    made = cgroup2_mount() / f"{PREFIX}{os.getpid()}-{next(_cgroup_numbers)}.scope"
    made.mkdir()
    try:
        yield made
    finally:
        _remove(made)


def cgroup2_mount() -> Path:
    """The mount point of the v2 hierarchy. Raises FileNotFoundError."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise FileNotFoundError("cgroup2 is not mounted")


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A temporary folder that other users may read, like /etc/vllmwall."""
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def sweep() -> None:
    """Remove leftovers of benchmarks that were killed; the lab removes its own."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}[0-9]*-*"):
        if _is_orphaned(path):
            shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        for path in cgroup2_mount().glob(f"{PREFIX}[0-9]*-*"):
            if _is_orphaned(path):
                _remove(path)


def _is_orphaned(path: Path) -> bool:
    pid = path.name.removeprefix(PREFIX).partition("-")[0]
    return not Path("/proc", pid).exists()


def _remove(cgroup: Path) -> None:
    """The kernel releases a cgroup a moment after its last process has ended."""
    deadline = time.monotonic() + 3
    while True:
        try:
            cgroup.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
