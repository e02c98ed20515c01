"""The clock that ends peers: one that goes on evenly, whatever is done to the wall clock.

A wall clock that is set back would let in again whom a time limit had shut out. CLOCK_BOOTTIME
cannot be set and counts while the machine sleeps (clock_gettime(2)). What lies on disk is in
seconds since the epoch, so a daemon that starts after a jump reads it by the clock it finds.
"""

from __future__ import annotations

import time

_BOOTED = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def since_epoch() -> float:
    """Seconds since the epoch, as this process found the clock when it started."""
    return _BOOTED + time.clock_gettime(time.CLOCK_BOOTTIME)
