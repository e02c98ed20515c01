"""Exit statuses: stable, so that scripts can rely on them. Imports nothing of ours."""

from __future__ import annotations

from enum import IntEnum

from vllmwall.api.errors import ControlError


class Exit(IntEnum):
    """What a command ended with."""

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
    Exit.OK: "done; for `status`: every wall stands as wanted; for `explain`: all is open",
    Exit.FAILED: "it was tried and failed; the message says why",
    Exit.BAD_CONFIG: "the command line or the configuration is wrong",
    Exit.NOT_RUNNING: "no daemon answers",
    Exit.DENIED: "permission denied: ask as root",
    Exit.NOT_SAFE: "`status`: a wall does not stand as wanted, is not known, or drops nothing",
    Exit.FINDINGS: "`audit`: a finding is as bad as `--fail-on` says, or worse",
    Exit.DISPROVED: "`prove`: a try met something else than it must, or proves nothing",
    Exit.CLOSED: "`explain`: a door that was asked about is closed",
    Exit.UNDECIDED: "`explain`: it depends on a limit, or the table is not understood",
    Exit.OPEN: "`run`: the job cannot be guarded, so it was not started",
    Exit.NOT_EXECUTABLE: "`run`: the command cannot be executed",
    Exit.NO_SUCH_COMMAND: "`run`: there is no such command; else `run` ends as the command does",
}

_BY_CODE = {"not-running": Exit.NOT_RUNNING, "denied": Exit.DENIED}


def exit_of(error: ControlError) -> Exit:
    """The exit status for a request that did not succeed."""
    return _BY_CODE.get(error.code, Exit.FAILED)
