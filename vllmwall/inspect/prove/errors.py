"""The error of `vllmwall prove`."""

from __future__ import annotations


class ProveError(Exception):
    """No probes could be sent; the message says why."""
