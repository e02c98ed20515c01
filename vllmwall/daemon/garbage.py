"""Collections of garbage that stop nobody.

Python looks at all that lives whenever a quarter has been added to it, which takes a tenth of a
second where a user runs thousands of processes. Nearly everything of ours is freed without that, by
counting references. So only young objects are looked at as usual, and all of them once an hour.
"""

from __future__ import annotations

import gc
import time

_YOUNG, _MIDDLE = 10_000, 10
_NEVER = 1 << 30
_FULL_SECONDS = 3600.0


class Garbage:
    """Decides when all objects are looked at."""

    def __init__(self) -> None:
        gc.set_threshold(_YOUNG, _MIDDLE, _NEVER)
        self._due = time.monotonic() + _FULL_SECONDS

    def collect(self) -> None:
        """Look at all of them, if it is time."""
        if time.monotonic() >= self._due:
            gc.collect()
            self._due = time.monotonic() + _FULL_SECONDS
