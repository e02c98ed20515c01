"""What peers can refuse. Imports nothing of ours."""

from __future__ import annotations


class PeerError(Exception):
    """A change to the peers was refused, or could not be written down.

    The message says which network, why, and what to do.
    """
