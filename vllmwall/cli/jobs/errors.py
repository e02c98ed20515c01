"""The error of a job that cannot be guarded."""

from __future__ import annotations


class NotGuardedError(Exception):
    """A job cannot be guarded: ``message`` says why and where, ``hint`` what to do (or nothing)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__("\n".join(filter(None, (message, hint))))
        self.message = message
        self.hint = hint
