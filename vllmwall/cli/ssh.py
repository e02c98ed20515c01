"""The SSH connection that a command comes over, so that no change cuts it."""

from __future__ import annotations

import os
from pathlib import Path

_VARIABLE = "SSH_CONNECTION"


def ssh_connection() -> str:
    """``client port server port`` from sshd's variable; empty: no SSH session.

    sudo removes the variable, so the environments of our ancestors are read: sshd gave it to the
    login shell.
    """
    if found := os.environ.get(_VARIABLE):
        return found
    pid = os.getppid()
    while pid > 1:
        found, pid = _of(pid)
        if found:
            return found
    return ""


def ssh_client() -> str:
    """The address of the SSH client; empty: no SSH session."""
    return ssh_connection().partition(" ")[0]


def _of(pid: int) -> tuple[str, int]:
    """The variable in the environment of a process, and its parent; 0 where /proc is unreadable."""
    folder = Path("/proc", str(pid))
    try:
        parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError):
        return "", 0
    try:
        variables = (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return "", parent
    prefix = f"{_VARIABLE}=".encode()
    found = next((one for one in variables if one.startswith(prefix)), prefix)
    return found.removeprefix(prefix).decode(errors="replace"), parent
