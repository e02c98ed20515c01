"""Cgroups for jobs where systemd does not run (mostly containers).

They are at ``/vllmwall.slice/run-….scope`` below the cgroup v2 mount, named as systemd names them.
The daemon removes those of jobs that have ended, and so does the next job that starts.
"""

from __future__ import annotations

import errno
import os

from vllmwall.cli.jobs.errors import NotGuardedError
from vllmwall.linux.cgroups import SLICE, locked_slice, mount_point, remove_empty_scopes

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
        with locked_slice(folder):
            remove_empty_scopes(folder)
            (folder / scope).mkdir()
            (folder / scope / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        message = f"no cgroup for the job at {folder}: {error.strerror}"
        raise NotGuardedError(message, _HINTS.get(error.errno or 0, "See cgroups(7).")) from error
