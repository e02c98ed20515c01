"""Ending processes that the lab started, by their pid, politely first."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

PATIENCE = 3.0
"""Seconds between the polite signal and the kill."""


def end_group(process: subprocess.Popen[str]) -> None:
    """Terminate, then kill, the process group that this process leads, and close its pipe."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()


def end_processes_in(namespace: Path) -> None:
    """Terminate, then kill, whatever lives in this network namespace of the lab's own."""
    inode = namespace.stat().st_ino
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _pids_in(inode):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + PATIENCE
        while _pids_in(inode) and time.monotonic() < deadline:
            time.sleep(0.01)


def _pids_in(inode: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is a zombie
            if (folder / "ns/net").stat().st_ino == inode and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found
