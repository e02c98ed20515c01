"""The processes that hold each socket: an index of ``/proc/PID/fd``.

The kernel has no cheaper interface (ss does the same), so `OwnerIndex` caches results and reads
again only where something can have changed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping

_PREFIX = "socket:["
STARVED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class OwnerIndex:
    """Remembers the owners of listening sockets between passes."""

    def __init__(self) -> None:
        self._held: dict[int, set[int]] = {}
        self._identity: dict[int, object] = {}
        self._searched: set[int] = set()

    def update(
        self, inodes: set[int], processes: Mapping[int, object], always: Iterable[int] = ()
    ) -> dict[int, tuple[int, ...]]:
        """The owners of each of ``inodes`` among ``processes`` (pid → identity), sorted.

        Looks into processes that are new since the last call and into ``always`` (members of
        workloads can hand sockets to each other); into all of them only for sockets that are
        new and still without an owner.
        """
        changed = {pid for pid, who in processes.items() if self._identity.get(pid) != who}
        for pid in [pid for pid in self._held if pid not in processes]:
            del self._held[pid]
        self._identity = dict(processes)
        self._scan(changed.union(always) & processes.keys())
        orphans = inodes - set().union(*self._held.values()) - self._searched
        if orphans:
            self._scan(processes.keys())
        self._searched = (self._searched | orphans) & inodes
        return self._inverse(inodes)

    def look_into(self, pid: int) -> set[int]:
        """Read one process again, because an event named it; the sockets that it holds."""
        self._scan((pid,))
        return self._held.get(pid, set())

    def _scan(self, pids: Iterable[int]) -> None:
        for pid in pids:
            self._held[pid] = sockets_of(pid)

    def _inverse(self, inodes: set[int]) -> dict[int, tuple[int, ...]]:
        owners: dict[int, list[int]] = {inode: [] for inode in inodes}
        for pid in sorted(self._held):
            for inode in self._held[pid] & inodes:
                owners[inode].append(pid)
        return {inode: tuple(pids) for inode, pids in owners.items()}


def sockets_of(pid: int) -> set[int]:
    """The inodes of all sockets that ``pid`` holds; empty when it is gone.

    Raises OSError when descriptors or memory run out: a listener must not seem to have no owner
    because reading failed. Processes that root may not read hold nothing.
    """
    folder = f"/proc/{pid}/fd"
    found: set[int] = set()
    try:
        names = os.listdir(folder)  # noqa: PTH208 a Path a descriptor costs more than the read
    except OSError as error:
        if error.errno in STARVED:
            raise
        return found
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")  # noqa: PTH115
        except OSError as error:
            if error.errno in STARVED:
                raise
            continue  # closed meanwhile: normal
        if target.startswith(_PREFIX):
            found.add(int(target[len(_PREFIX) : -1]))
    return found
