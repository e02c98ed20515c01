"""What can go wrong with a job of ours."""

from __future__ import annotations


class NotGuardedError(Exception):
    """A job cannot be guarded: what is wrong, where, and what to do, in words."""
