"""Exec events without tracefs: the kernel's process connector, through pyroute2.

It reports started programs only, so listeners are found by polling. It works only in the initial
network and pid namespaces (drivers/connector/cn_proc.c) and needs CAP_NET_ADMIN. pyroute2 is
imported here only: it takes 16 MB that a node with tracefs does not need.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from queue import Queue

from vllmwall.observe.events import EventsUnavailableError, ExecEvent

_PROC_EVENT_EXEC = 2  # linux/cn_proc.h
_KEPT = 10_000


class ConnectorEvents:
    """Exec events, read by a thread of its own because pyroute2 keeps a buffer of its own.

    Raises EventsUnavailableError where the kernel offers no process connector.
    """

    def __init__(self) -> None:
        self._pids: deque[int] = deque(maxlen=_KEPT)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        opened: Queue[Exception | None] = Queue()
        # pyroute2 ties a socket to the thread that opened it (0.9: to its event loop).
        threading.Thread(target=self._follow, args=(opened,), name="connector", daemon=True).start()
        if (error := opened.get()) is not None:
            raise EventsUnavailableError(f"process connector: {error}") from error

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._wake_read

    def read(self) -> Iterator[ExecEvent]:
        """Programs started since the last call; does not wait."""
        with suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while self._pids:
            yield ExecEvent(self._pids.popleft())

    def close(self) -> None:
        """Give the descriptors back; the thread ends with the process."""
        os.close(self._wake_read)

    def _follow(self, opened: Queue[Exception | None]) -> None:
        try:
            from pyroute2.netlink.connector.cn_proc import ProcEventSocket

            source = ProcEventSocket()
            source.bind()
            source.control(listen=True)
        except Exception as error:  # pyroute2 raises its own and OSError, by version
            opened.put(error)
            return
        opened.put(None)
        with suppress(Exception):  # a broken socket costs latency only: polling goes on
            while True:
                self._note(source.get())

    def _note(self, messages: Iterable[Mapping[str, int]]) -> None:
        started = [one["process_tgid"] for one in messages if one["what"] == _PROC_EVENT_EXEC]
        if started:
            self._pids.extend(started)
            with suppress(BlockingIOError):
                os.write(self._wake_write, b"x")
