"""Cgroups for jobs where systemd does not run (mostly containers).

They are at ``/vllmwall.slice/run-….scope`` below the cgroup v2 mount, named as systemd names them.
No event reports the end of a job, so the next job that starts removes the empty ones.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vllmwall.cli.jobs.errors import NotGuardedError
from vllmwall.linux.cgroups import SLICE, mount_point

_DELEGATE = "Run it as root, or delegate the folder to your user (cgroup delegation)."
_HINTS = {
    errno.EROFS: "The mount is read-only, as in containers. Run the job without `vllmwall run`: "
    "the daemon of the host guards the container as a whole.",
    errno.EACCES: _DELEGATE,
    errno.EPERM: _DELEGATE,
    errno.EEXIST: "A job of that name is running. Use another --name.",
    errno.EAGAIN: "The limit of cgroups is reached: raise cgroup.max.descendants.",
}


def enter(scope: str) -> None:
    """Move this process to a new cgroup below the slice. Raises NotGuardedError."""
    mount = mount_point()
    if mount is None:
        raise NotGuardedError(
            "no cgroup for the job: no cgroup v2 hierarchy is mounted here",
            "Run as root: mount -t cgroup2 none /sys/fs/cgroup",
        )
    folder = mount / SLICE.lstrip("/")
    try:
        folder.mkdir(exist_ok=True)
        with _locked(folder):
            _sweep(folder)
            (folder / scope).mkdir()
            (folder / scope / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        message = f"no cgroup for the job at {folder}: {error.strerror}"
        raise NotGuardedError(message, _HINTS.get(error.errno or 0, "See cgroups(7).")) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other jobs from removing empty cgroups: a new one is empty until its job is in it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove the cgroups of jobs that have ended; the kernel keeps those with a process."""
    for left in folder.glob("run-*.scope"):
        with suppress(OSError):
            left.rmdir()
