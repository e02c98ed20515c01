"""A cgroup of our own making around this process, where no systemd runs (containers, mostly).

It lies at ``/vllmwall.slice/run-….scope`` below the cgroup v2 mount, named as systemd would.
Nobody tells when a job has ended, so those that are empty are removed when the next one starts.
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

_TODO = {
    errno.EROFS: "it is read-only, as containers have it: run the job without `vllmwall run`, "
    "a container is guarded as a whole by the daemon of its host",
    errno.EACCES: "run it as root, or have root make the folder yours (cgroup delegation)",
    errno.EPERM: "run it as root, or have root make the folder yours (cgroup delegation)",
    errno.EEXIST: "a job of that name runs already: give another --name",
    errno.EAGAIN: "the limit of cgroups is reached (cgroup.max.descendants)",
}


def enter(scope: str) -> None:
    """Move this process to a new cgroup below the slice. Raises NotGuardedError."""
    mount = mount_point()
    if mount is None:
        raise NotGuardedError(
            "no cgroup for the job: no cgroup v2 hierarchy is mounted here (as root: "
            "mount -t cgroup2 none /sys/fs/cgroup)"
        )
    folder = mount / SLICE.lstrip("/")
    try:
        folder.mkdir(exist_ok=True)
        with _alone(folder):
            _sweep(folder)
            (folder / scope).mkdir()
            (folder / scope / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        todo = _TODO.get(error.errno or 0, "see cgroups(7)")
        raise NotGuardedError(f"no cgroup for the job at {folder}: {error.strerror}; {todo}") from (
            error
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else sweeps meanwhile: a cgroup is empty until its job is in it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove those whose job has ended; the kernel keeps what still holds a process."""
    for left in folder.glob("run-*.scope"):
        with suppress(OSError):
            left.rmdir()
