"""What keeps a proof from being made."""

from __future__ import annotations


class ProveError(Exception):
    """Nothing could be proved: what is wrong, where, and what to do, in words."""
