"""A job in a cgroup of its own, guarded before its first instruction: what `vllmwall run` does.

A job of an ssh session shares the session's cgroup with whatever else its user starts, so no
guard may stand there. Here the calling process moves to a scope of its own, has the daemon
guard that, and becomes the job: same pid, terminal, signals, standard input and exit status.
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
"""What a job can be called: part of a unit's name and of a path (systemd.unit(5))."""

_PATIENCE = 10.0  # seconds; the daemon arms a guard within milliseconds
_TODO = {
    "not-running": "start it (systemctl start vllmwall)",
    "denied": "or have root start the job",
}


def enter_guarded(name: str, socket_path: Path) -> str:
    """Move this process to a guarded scope of its own below ``vllmwall.slice``; its cgroup.

    ``name`` empty: one that nobody else has. Raises NotGuardedError: the process may have moved
    then, and nothing keeps strangers out.
    """
    scope = f"run-{name or f'{os.getpid()}-{secrets.token_hex(3)}'}.scope"
    (systemd if systemd.is_running() else plain).enter(scope)
    try:
        answer = request("guard", {}, socket_path, _PATIENCE)
    except ControlError as error:
        todo = _TODO.get(error.code)
        raise NotGuardedError(f"{error}; {todo}" if todo else str(error)) from error
    if answer.get("guarded") is not True:
        raise NotGuardedError(str(answer.get("why") or "the daemon does not say why"))
    return str(answer.get("cgroup", ""))


def program(command: str) -> str:
    """The file that a command names. Raises FileNotFoundError and PermissionError."""
    found = shutil.which(command)
    if found is not None:
        return found
    if shutil.which(command, mode=os.F_OK) is not None:
        raise PermissionError(f"{command} is not executable")
    raise FileNotFoundError(f"there is no command {command}")


def become(file: str, argv: Sequence[str]) -> NoReturn:
    """Be the job from now on. Raises OSError.

    Python ignores SIGPIPE and SIGXFSZ, and what is ignored stays so over exec.
    """
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    os.execv(file, list(argv))  # noqa: S606 (no shell is what we want)
