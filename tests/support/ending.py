"""Ending processes that the lab started, by their pid, politely first."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
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


def end_processes_in(namespaces: Iterable[Path]) -> None:
    """Terminate, then kill, whatever lives in these network namespaces of the lab's own."""
    inodes = {namespace.stat().st_ino for namespace in namespaces}
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not (found := _pids_in(inodes)):
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + PATIENCE
        while _pids_in(inodes) and time.monotonic() < deadline:
            time.sleep(0.01)


def _pids_in(inodes: set[int]) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 hot
        with contextlib.suppress(OSError):  # it ended meanwhile, or is a zombie
            inode = os.stat(f"/proc/{name}/ns/net").st_ino  # noqa: PTH116 hot
            if inode in inodes and int(name) != os.getpid():
                found.append(int(name))
    return found
