"""Reads that another process can block for ever, with an end to our patience.

The kernel reads a command line, an environment and a memory map under a lock of the process that
they belong to (mmap_lock). A thread of it that waits for a mount, or a driver that does not answer,
may hold that lock, and a program that reads then waits in the kernel and cannot be interrupted. So
a thread of ours reads, and is left to itself where it does not come back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, cast

_LOOK_SECONDS = 0.02
_MOST_BLOCKED = 16

Read = TypeVar("Read")


class _Worker(threading.Thread):
    """A thread that reads batch after batch, until it is left."""

    def __init__(self) -> None:
        super().__init__(name="reading", daemon=True)
        self.asked, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.pids: list[int] = []
        self.read: Callable[[int], object]
        self.found: dict[int, object] = {}
        self.failed: dict[int, Exception] = {}
        self.at = 0
        self.is_left = False
        self.start()

    def run(self) -> None:
        while self.asked.acquire():
            for pid in self.pids:
                self.at = pid
                try:
                    self.found[pid] = self.read(pid)
                except Exception as error:
                    self.failed[pid] = error
                if self.is_left:
                    return
            self.done.release()

    @property
    def is_blocked(self) -> bool:
        """It waits in the kernel and cannot be interrupted; False: it only lacks the processor."""
        with suppress(OSError, IndexError):
            stat = Path(f"/proc/self/task/{self.native_id}/stat").read_bytes()
            return stat.rpartition(b")")[2].split()[0] == b"D"
        return False


class Patience:
    """Reads processes by their pids. `blocked` are those that could not be read."""

    def __init__(self) -> None:
        self._worker: _Worker | None = None
        self._left: dict[int, _Worker] = {}

    @property
    def blocked(self) -> frozenset[int]:
        """The processes whose reads have not come back yet. They are not read meanwhile."""
        self._left = {pid: one for pid, one in self._left.items() if one.is_alive()}
        return frozenset(self._left)

    def read(
        self, pids: Iterable[int], read: Callable[[int], Read]
    ) -> tuple[Mapping[int, Read], Mapping[int, Exception]]:
        """What ``read`` returns for each pid, and what it raises. A pid that blocks is in neither.

        ``read`` runs in another thread, and must change nothing.
        """
        found: dict[int, Read] = {}
        failed: dict[int, Exception] = {}
        waiting = [pid for pid in pids if pid not in self._left or pid not in self.blocked]
        while waiting and len(self._left) < _MOST_BLOCKED:
            worker = self._ask(waiting, read)
            if worker is None:
                return _read_here(waiting, read)
            self._wait(worker)
            found.update(cast("Mapping[int, Read]", worker.found))
            failed.update(worker.failed)
            after = waiting.index(worker.at) + 1
            waiting = waiting[after:] if worker.is_left else []
        return found, failed

    def _ask(self, pids: list[int], read: Callable[[int], Read]) -> _Worker | None:
        try:
            worker = self._worker = self._worker or _Worker()
        except RuntimeError:  # the kernel refuses another thread
            return None
        worker.pids, worker.read, worker.found, worker.failed = pids, read, {}, {}
        worker.asked.release()
        return worker

    def _wait(self, worker: _Worker) -> None:
        """Until it is done, or blocked at the same process in two looks."""
        blocked_at = 0
        while not worker.done.acquire(timeout=_LOOK_SECONDS):
            at = worker.at if worker.is_blocked else 0
            if at and at == blocked_at:
                self._leave(worker)
                return
            blocked_at = at

    def _leave(self, worker: _Worker) -> None:
        worker.is_left = True
        self._left[worker.at] = worker
        self._worker = None


def _read_here(
    pids: Iterable[int], read: Callable[[int], Read]
) -> tuple[Mapping[int, Read], Mapping[int, Exception]]:
    found, failed = {}, {}
    for pid in pids:
        try:
            found[pid] = read(pid)
        except Exception as error:
            failed[pid] = error
    return found, failed
