"""Jobs in a cgroup of their own, guarded before their first instruction, for `vllmwall run`.

A job of an ssh session shares the session's cgroup with everything else that its user starts, so
that cgroup cannot be guarded. Here the calling process moves to a scope of its own, the daemon
guards the scope, and the process becomes the job: with the same pid, terminal, signals, standard
input and exit status.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from vllmwall.api.client import request
from vllmwall.api.errors import ControlError
from vllmwall.cli.jobs import plain, systemd
from vllmwall.cli.jobs.errors import NotGuardedError

__all__ = ["NAME", "NotGuardedError", "become", "enter_guarded", "program"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
"""Valid names of jobs: parts of a unit's name and of a path (systemd.unit(5))."""

_PATIENCE = 10.0  # seconds; the daemon arms a guard within milliseconds
_HINTS = {
    "not-running": "Start the daemon: systemctl start vllmwall.",
    "denied": "Run the command as root or as a member of the group vllmwall.",
}


def enter_guarded(name: str, socket_path: Path) -> str:
    """Move this process to a guarded scope of its own below ``vllmwall.slice``; its cgroup.

    ``name`` empty: a unique one. Raises NotGuardedError; the process may have moved then, but its
    ports are not closed to strangers.
    """
    scope = f"run-{name or f'{os.getpid()}-{secrets.token_hex(3)}'}.scope"
    (systemd if systemd.is_running() else plain).enter(scope)
    try:
        answer = request("guard", {}, socket_path, _PATIENCE)
    except ControlError as error:
        hint = error.hint or _HINTS.get(error.code, "")
        raise NotGuardedError(error.message, hint) from error
    if answer.get("guarded") is not True:
        raise NotGuardedError(str(answer.get("why") or "the daemon does not say why"))
    return str(answer.get("cgroup", ""))


def program(command: str) -> str:
    """The file of a command. Raises FileNotFoundError and PermissionError."""
    found = shutil.which(command)
    if found is not None:
        return found
    if shutil.which(command, mode=os.F_OK) is not None:
        raise PermissionError(f"{command} is not executable")
    raise FileNotFoundError(f"there is no command {command}")


def become(file: str, argv: Sequence[str]) -> NoReturn:
    """Replace this process by the job. Raises OSError.

    Python ignores SIGPIPE and SIGXFSZ, and exec would pass that on to the job.
    """
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execv(file, list(argv))  # noqa: S606 (no shell is what we want)
