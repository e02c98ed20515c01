"""Cgroups of a test's own in the v2 hierarchy of this machine, gone with the test."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.sharing import locked
from tests.support.waiting import eventually
from vllmwall.linux.cgroups import SLICE, mount_point


def root() -> Path:
    """Where the hierarchy is; skips where the machine has none."""
    mount = mount_point()
    if mount is None:
        pytest.skip("no cgroup v2 hierarchy is mounted here")
    return mount


@contextlib.contextmanager
def cgroup(path: str) -> Iterator[Path]:
    """Make a cgroup and those above it; in the end kill what runs in it and remove it.

    Those above it are removed, too, unless something else is in them.
    """
    folder = root() / path.lstrip("/")
    above = [one for one in folder.parents if not one.exists()]
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        remove(folder)
        with contextlib.suppress(OSError):
            for one in above:
                one.rmdir()


@contextlib.contextmanager
def shared_slice() -> Iterator[Path]:
    """/vllmwall.slice, for one test at a time. Jobs that are not a test's stay in it."""
    folder = root() / SLICE.lstrip("/")
    with locked(Path(tempfile.gettempdir()) / "vllmwall-tests-slice.lock"):
        before = set(folder.glob("*/"))
        try:
            yield folder
        finally:
            for one in set(folder.glob("*/")) - before:
                remove(one)
            with contextlib.suppress(OSError):
                folder.rmdir()


def contained(folder: Path) -> str:
    """Shell text after which a command line has this cgroup as the root of its hierarchy."""
    mount = root()
    inside = f'umount --lazy {mount} && mount -t cgroup2 none {mount} && exec "$@"'
    enter = f"echo $$ >{folder}/cgroup.procs"
    return f"{enter} && exec unshare --cgroup --mount sh -c '{inside}' sh \"$@\""


def remove(folder: Path) -> None:
    """End what runs in a cgroup and below it, and remove it."""

    def is_gone() -> bool:
        for below in [*folder.glob("**/"), folder][::-1]:
            with contextlib.suppress(OSError):  # it is gone, or something in it has not ended yet
                for pid in (below / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                below.rmdir()
        return not folder.exists()

    eventually(is_gone, f"{folder} is removed")


def inside(folder: Path, argv: Sequence[str]) -> list[str]:
    """The command line that runs ``argv`` in the cgroup, from before its first instruction."""
    return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(folder / "cgroup.procs"), *argv]
