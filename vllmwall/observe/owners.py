"""The processes that hold each socket: an index of ``/proc/PID/fd``.

The kernel has no cheaper interface (ss does the same), so `OwnerIndex` caches results and reads
again only where something can have changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType

from vllmwall.observe.proc import STARVED, entries
from vllmwall.observe.shares import Account, Shares

_PREFIX = "socket:["
_MOST_DESCRIPTORS = 8192  # of one process: listeners are mostly among the first
_MOST_AT_ONCE = 1024  # the same when an event named it: others wait
_SHARE = 32768  # descriptors of one user that an update looks at: 0.1 seconds


class OwnerIndex:
    """Remembers the owners of listening sockets between passes."""

    def __init__(self) -> None:
        self._held: dict[int, set[int]] = {}
        self._identity: dict[int, object] = {}
        self._searched: set[int] = set()
        self._shares = Shares(0, 0)

    @property
    def over(self) -> Collection[Account]:
        """Those whose processes had more descriptors in the last update than were looked at."""
        return self._shares.over

    def update(
        self,
        inodes: set[int],
        processes: Mapping[int, object],
        always: Collection[int] = (),
        accounts: Mapping[int, Account] = MappingProxyType({}),
        catch_up: Callable[[], None] = lambda: None,
    ) -> dict[int, tuple[int, ...]]:
        """The owners of each of ``inodes`` among ``processes`` (pid → identity), sorted.

        Looks into processes that are new since the last call and into ``always`` (members of
        workloads can hand sockets to each other); into all of them only for sockets that are
        new and still without an owner. Each of ``accounts`` (by pid) has its share of the time.
        """
        self._shares = Shares(_SHARE, 4 * _SHARE)
        changed = {pid for pid, who in processes.items() if self._identity.get(pid) != who}
        for pid in [pid for pid in self._held if pid not in processes]:
            del self._held[pid]
        self._identity = dict(processes)
        for pid, held in self._held.items():
            self._held[pid] = held & inodes
        self._scan(changed.union(always) & processes.keys(), inodes, accounts, catch_up)
        orphans = inodes - set().union(*self._held.values()) - self._searched
        if orphans:
            self._scan(processes.keys(), inodes, accounts, catch_up)
        self._searched = (self._searched | orphans) & inodes
        return self._inverse(inodes)

    def look_into(self, pid: int, inodes: Collection[int]) -> set[int]:
        """Read one process again, because an event named it; those of ``inodes`` that it holds."""
        found = sockets_of(pid, _MOST_AT_ONCE)[0].intersection(inodes)
        self._held[pid] = self._held.get(pid, set()) | found
        return found

    def _scan(
        self,
        pids: Iterable[int],
        inodes: set[int],
        accounts: Mapping[int, Account],
        catch_up: Callable[[], None],
    ) -> None:
        for number, pid in enumerate(pids):
            account = accounts.get(pid)
            if self._shares.take(account, 0):
                found, looked = sockets_of(pid)
                self._shares.use(account, looked)
                self._held[pid] = found & inodes
            else:
                self._identity.pop(pid, None)  # the next time
            if number % 64 == 0:
                catch_up()

    def _inverse(self, inodes: set[int]) -> dict[int, tuple[int, ...]]:
        owners: dict[int, list[int]] = {inode: [] for inode in inodes}
        for pid in sorted(self._held):
            for inode in self._held[pid] & inodes:
                owners[inode].append(pid)
        return {inode: tuple(pids) for inode, pids in owners.items()}


def sockets_of(pid: int, most: int = _MOST_DESCRIPTORS) -> tuple[set[int], int]:
    """The inodes of the sockets that ``pid`` holds, and how many descriptors were looked at, at
    most ``most``; none when it is gone.

    Raises OSError when descriptors or memory run out: a listener must not seem to have no owner
    because reading failed. Processes that root may not read hold nothing.
    """
    folder = f"/proc/{pid}/fd"
    found: set[int] = set()
    names = entries(folder, most)
    for name in names:
        try:
            target = os.readlink(f"{folder}/{name}")  # noqa: PTH115
        except OSError as error:
            if error.errno in STARVED:
                raise
            continue  # closed meanwhile: normal
        if target.startswith(_PREFIX):
            found.add(int(target[len(_PREFIX) : -1]))
    return found, len(names)
