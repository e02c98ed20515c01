"""A server of the daemon's loop, served by a thread as the loop would serve it."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol


class Server(Protocol):
    """What the loop polls."""

    @property
    def deadline(self) -> float:
        """When the next round begins in any case (monotonic seconds)."""

    def descriptors(self) -> Mapping[int, int]:
        """Descriptors and the events to poll them for."""

    def ready(self, descriptor: int) -> bool:
        """Serve one of them."""

    def close(self) -> None:
        """Stop serving."""


@contextmanager
def served(server: Server) -> Iterator[None]:
    """Serve until the block ends."""
    stop_read, stop_write = os.pipe()
    thread = threading.Thread(target=_loop, args=(server, stop_read))
    thread.start()
    try:
        yield
    finally:
        os.write(stop_write, b"x")
        thread.join()
        server.close()
        os.close(stop_read)
        os.close(stop_write)


def _loop(server: Server, stop: int) -> None:
    while True:
        poll = select.poll()
        poll.register(stop, select.POLLIN)
        for descriptor, events in server.descriptors().items():
            poll.register(descriptor, events)
        seconds = max(0.0, min(10.0, server.deadline - time.monotonic()))
        for descriptor, _ in poll.poll(seconds * 1000):
            if descriptor == stop:
                return
            server.ready(descriptor)
