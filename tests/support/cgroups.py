"""Cgroups of a test's own in the v2 hierarchy of this machine, gone with the test."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from vllmwall.linux.cgroups import mount_point

_PATIENCE = 5.0


def root() -> Path:
    """Where the hierarchy is; skips where the machine has none."""
    mount = mount_point()
    if mount is None:
        pytest.skip("no cgroup v2 hierarchy is mounted here")
    return mount


@contextlib.contextmanager
def cgroup(path: str) -> Iterator[Path]:
    """Make a cgroup (and those above it); in the end kill what runs in it and remove it."""
    folder = root() / path.lstrip("/")
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        for one in made:
            remove(one)


def remove(folder: Path) -> None:
    """End what runs in a cgroup and below it, and take it away."""
    deadline = time.monotonic() + _PATIENCE
    while folder.exists():
        for below in [*folder.glob("**/"), folder][::-1]:
            for pid in (below / "cgroup.procs").read_text().split() if below.exists() else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            with contextlib.suppress(OSError):
                below.rmdir()
        assert time.monotonic() < deadline, f"{folder} cannot be removed"
        time.sleep(0.01)


def inside(folder: Path, argv: Sequence[str]) -> list[str]:
    """The command line that runs ``argv`` in the cgroup, from before its first instruction."""
    return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(folder / "cgroup.procs"), *argv]
