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


MEANINGS = {
    Exit.OK: "done; `status`: every wall is active as wanted; `explain`: everything is open",
    Exit.FAILED: "the command failed; the message says why",
    Exit.BAD_CONFIG: "the command line or the configuration is invalid",
    Exit.NOT_RUNNING: "no daemon answers",
    Exit.DENIED: "permission denied; run the command as root",
    Exit.NOT_SAFE: "`status`, `up`, `reload`: a wall is not active as wanted, is unknown, or drops "
    "nothing; `doctor`: a check failed",
    Exit.FINDINGS: "`audit`: a finding has the severity of `--fail-on` or a higher one",
    Exit.DISPROVED: "`prove`: a probe had an unexpected or inconclusive result",
    Exit.CLOSED: "`explain`: a port that was asked about is closed",
    Exit.UNDECIDED: "`explain`: a limit decides, or the rules were not understood",
    Exit.OPEN: "`run`: the job cannot be guarded, so it was not started",
    Exit.NOT_EXECUTABLE: "`run`: the command cannot be executed",
    Exit.NO_SUCH_COMMAND: "`run`: the command does not exist; otherwise `run` ends with the "
    "status of the command",
}

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
