"""Exit statuses and the codes of errors: stable, so that scripts can rely on them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit status of a command."""

    OK = 0
    FAILED = 1
    BAD_CONFIG = 2
    NOT_RUNNING = 3
    DENIED = 4
    NOT_SAFE = 5
    FINDINGS = 6
    DISPROVED = 7
    CLOSED = 8
    UNDECIDED = 9
    OPEN = 125
    NOT_EXECUTABLE = 126
    NO_SUCH_COMMAND = 127


ERRORS = {
    "failed": Exit.FAILED,
    "bad-request": Exit.FAILED,
    "internal": Exit.FAILED,
    "usage": Exit.BAD_CONFIG,
    "config": Exit.BAD_CONFIG,
    "not-running": Exit.NOT_RUNNING,
    "denied": Exit.DENIED,
    "not-guarded": Exit.OPEN,
    "not-executable": Exit.NOT_EXECUTABLE,
    "no-such-command": Exit.NO_SUCH_COMMAND,
}
"""The exit status that belongs to the ``code`` of an error under ``--json``. A code that is not
listed (a newer daemon's) ends the command with 1."""
