"""Locks for what test processes share: one builds it, the others wait and use it.

The processes are the workers of one run and the runs of other checkouts.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache"
TRACEFS = Path("/sys/kernel/tracing")
_TEMPORARY = Path(tempfile.gettempdir())
_USERS = _TEMPORARY / "vllmwall-tests-tracefs"
"""Locked shared by every process that needs tracefs; it has a text when a test mounted it."""


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the exclusive lock on this file, which is made if it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def cache_lock(name: str) -> Iterator[None]:
    """Hold the lock under which ``name`` is built into `CACHE`."""
    with locked(CACHE / "locks" / name):
        yield


@contextlib.contextmanager
def tracefs() -> Iterator[None]:
    """Have tracefs mounted; the last process that uses a mount of the tests removes it."""
    change = _USERS.with_suffix(".lock")
    with _USERS.open("a+") as users:
        with locked(change):
            fcntl.flock(users, fcntl.LOCK_SH)
            if not (TRACEFS / "instances").is_dir():
                subprocess.run(["mount", "-t", "tracefs", "nodev", str(TRACEFS)], check=False)
                users.write("mounted by a test\n")
                users.flush()
        yield
        with locked(change), contextlib.suppress(BlockingIOError):
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            users.seek(0)
            if users.read():
                subprocess.run(["umount", "--lazy", str(TRACEFS)], check=False)
                users.truncate(0)


@contextlib.contextmanager
def folder_for_all_users() -> Iterator[Path]:
    """A temporary folder that all users can reach; pytest's own are root's alone."""
    made = Path(tempfile.mkdtemp(prefix="vwusers"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made)


def open_to_all_users(folder: Path) -> None:
    """Let other users pass through this temporary folder, which is root's alone by default."""
    for one in (folder, *folder.parents):
        if one == _TEMPORARY:
            return
        one.chmod(0o755)
    raise ValueError(f"{folder} is not below {_TEMPORARY}")
