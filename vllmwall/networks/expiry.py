"""Networks that expire, and the clock that they expire by.

The clock runs evenly, even if the wall clock is set: a wall clock that is set back would admit
again a source whose time limit has passed. CLOCK_BOOTTIME cannot be set and counts while the
machine sleeps (clock_gettime(2)). Times on disk are in seconds since the epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from math import inf

from vllmwall.cidr import merged
from vllmwall.model import Network

_BOOTED = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def since_epoch() -> float:
    """Seconds since the epoch, by the wall clock as it was when this process started."""
    return _BOOTED + time.clock_gettime(time.CLOCK_BOOTTIME)


class MergedNetworks:
    """Merged networks, computed again only after `clear` and when one expires.

    ``read`` gives the networks that count now and when each expires (None: never).
    """

    def __init__(
        self,
        read: Callable[[], Iterable[tuple[Network, float | None]]],
        clock: Callable[[], float],
    ) -> None:
        self._read = read
        self._clock = clock
        self._networks: tuple[Network, ...] = ()
        self._since, self._until = inf, -inf

    def clear(self) -> None:
        """Compute them again at the next `now`."""
        self._since, self._until = inf, -inf

    def now(self) -> tuple[Network, ...]:
        """The fewest CIDRs that hold all of them, IPv4 first."""
        now = self._clock()
        if not self._since <= now < self._until:
            found = list(self._read())
            self._networks = merged(network for network, _ in found)
            ends = (end for _, end in found if end is not None)
            self._since, self._until = now, min(ends, default=inf)
        return self._networks
