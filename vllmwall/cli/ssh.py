"""The SSH connection that a command comes over, so that no change cuts it."""

from __future__ import annotations

import os
from contextlib import suppress

_VARIABLE = "SSH_CONNECTION"


def ssh_connection() -> str:
    """``client port server port`` from sshd's variable; empty: no SSH session.

    sudo removes the variable, so the environments of our ancestors are read: sshd gave it to the
    login shell.
    """
    if found := os.environ.get(_VARIABLE):
        return found
    import psutil

    for process in psutil.Process().parents():
        with suppress(psutil.Error):
            if found := process.environ().get(_VARIABLE):
                return found
    return ""


def ssh_client() -> str:
    """The address of the SSH client; empty: no SSH session."""
    return ssh_connection().partition(" ")[0]
