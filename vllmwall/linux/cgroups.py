"""The cgroup v2 hierarchy: its mount point, cgroups' numbers, and the cgroups made for one job.

The kernel knows a cgroup by its number, which is the inode of its folder (kernfs_node.id, since
Linux 5.5); on 64-bit machines no number is given twice. Paths are those of ``/proc/PID/cgroup``:
absolute, below the mount.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

SLICE = "/vllmwall.slice"
"""Everything in this slice is guarded, because the operator put it there."""

_FIRST_NAMESPACE = 0xEFFFFFFB  # PROC_CGROUP_INIT_INO, linux/proc_ns.h
_UNIT = re.compile(r".+\.(?:service|scope)")
_SHARED = re.compile(r"session-.+\.scope|init\.scope|user@.*\.service|(?:.+_)?slurmstepd\.scope")
_SLURM_STEP = re.compile(r"step_.+")  # system.slice/slurmstepd.scope/job_7/step_0, Slurm 22.05
_CONTAINER = re.compile(r"(?:.*[-:])?[0-9a-f]{64}")  # docker/<id>, kubepods/…/pod<uid>/<id>
_AGAIN = re.compile(rf".+\.service|machine-.+\.scope|{_CONTAINER.pattern}(?:\.scope)?")


def mount_point(mounts: str = "/proc/self/mountinfo") -> Path | None:
    """The mount point of the whole v2 hierarchy; None: there is none that can be seen.

    Hybrid hosts have it beside the v1 hierarchies. Bind mounts of a part of it are skipped, and
    so are mounts that another one hides, even if a cgroup of the same name is in their place.
    """
    try:
        lines = Path(mounts).read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:  # proc_pid_mountinfo(5): id parent dev root place options … - type …
        place, _, kind = line.partition(" - ")
        root, *rest = place.split(" ")[3:]
        if kind.startswith("cgroup2 ") and root == "/":
            found = Path(rest[0].encode().decode("unicode_escape"))
            if _is_cgroup(found) and not _is_cgroup(found.parent):
                return found
    return None


def _is_cgroup(folder: Path) -> bool:
    return (folder / "cgroup.procs").exists()


def folder_of(path: str, mount: Path) -> Path:
    """The folder of a path of ``/proc/PID/cgroup``."""
    return mount / path.lstrip("/")


def open_folder(path: str, mount: Path) -> int:
    """A descriptor of the cgroup, valid even if its path is reused. Raises OSError."""
    return os.open(folder_of(path, mount), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def number_of(path: str, mount: Path) -> int | None:
    """The kernel's number of a cgroup; None: no cgroup has this path."""
    with suppress(OSError, ValueError):
        return os.stat(folder_of(path, mount)).st_ino  # noqa: PTH116 hot, tiny
    return None


def our_name_for(path: str, number: int, mount: Path) -> str | None:
    """The path in our cgroup namespace of a cgroup that has ``path`` in the kernel's first one.

    A container sees a part of the hierarchy as if it were the whole. None: it is in another part.
    """
    parts = path.split("/")
    names = ("/" + "/".join(parts[start:]) for start in range(1, len(parts)))
    return next((name for name in names if number_of(name, mount) == number), None)


def in_first_namespace(namespace: str = "/proc/self/ns/cgroup") -> bool:
    """Whether our paths are the same as in the kernel's events."""
    return os.stat(namespace).st_ino == _FIRST_NAMESPACE  # noqa: PTH116


def level_of(path: str) -> int:
    """The depth of a cgroup: 0 for the root, 1 for ``/system.slice``."""
    return len([part for part in path.split("/") if part])


@lru_cache(maxsize=4096)
def job_of(path: str) -> str | None:
    """The innermost cgroup of a path that is made for one job; None: it is shared with others.

    That is a container, a unit, a scope or a Slurm step. A login session, a user's service manager
    and the root are shared by everything that the user starts.
    """
    parts = path.split("/")
    for end in range(len(parts), 1, -1):
        name = parts[end - 1]
        if _SHARED.fullmatch(name):
            return None
        if _UNIT.fullmatch(name) or _SLURM_STEP.fullmatch(name) or _CONTAINER.fullmatch(name):
            return "/".join(parts[:end])
    return None


def is_within(path: str, cgroup: str) -> bool:
    """Whether a path is the cgroup or is below it."""
    return path == cgroup or path.startswith(cgroup.rstrip("/") + "/")


def comes_again(path: str) -> bool:
    """Whether a new cgroup at this path is the same job again.

    Services restart, and so do containers, under the same id, and machines (systemd-machined).
    Other scopes do not.
    """
    return path == SLICE or _AGAIN.fullmatch(path.rpartition("/")[2]) is not None


@contextmanager
def locked_slice(folder: Path, flags: int = 0) -> Iterator[None]:
    """Keep others from removing empty cgroups of jobs: a new one is empty until its job is in it.

    Raises OSError; BlockingIOError with ``flags`` LOCK_NB where another process has the lock.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
        yield
    finally:
        os.close(descriptor)


def remove_empty_scopes(folder: Path) -> None:
    """Remove the cgroups of jobs that have ended; the kernel keeps those with a process."""
    for left in folder.glob("run-*.scope"):
        with suppress(OSError):
            left.rmdir()


def remove_ended_jobs(booted: Path = Path("/run/systemd/system")) -> None:
    """Remove what jobs of `vllmwall run` left, where no systemd does (sd_booted(3))."""
    mount = mount_point()
    if mount is not None and not booted.is_dir():
        folder = folder_of(SLICE, mount)
        with suppress(OSError), locked_slice(folder, fcntl.LOCK_NB):
            remove_empty_scopes(folder)
