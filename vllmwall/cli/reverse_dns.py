"""Names of addresses from DNS, within a time that a person waits.

The owner of an address can write any PTR record. So a name counts only if it resolves to the
address again: then the owner of the name agrees.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from queue import Empty, SimpleQueue

_AT_ONCE = 16


def names_of(addresses: Collection[str], seconds: float) -> dict[str, str]:
    """The names that were found for all these addresses within ``seconds``."""
    waiting: SimpleQueue[str] = SimpleQueue()
    found: SimpleQueue[tuple[str, str]] = SimpleQueue()
    for address in addresses:
        waiting.put(address)

    def work() -> None:
        with suppress(Empty):
            while True:
                address = waiting.get_nowait()
                found.put((address, confirmed_name(address)))

    for _ in range(min(_AT_ONCE, len(addresses))):
        threading.Thread(target=work, daemon=True).start()  # late answers are dropped
    return _collected(found, len(addresses), time.monotonic() + seconds)


def confirmed_name(address: str) -> str:
    """The name of one address; empty: no name resolves to it again. Waits for DNS."""
    with suppress(OSError, UnicodeError):
        name = socket.getnameinfo((address, 0), socket.NI_NAMEREQD)[0]
        if any(found[4][0] == address for found in socket.getaddrinfo(name, 0)):
            return name
    return ""


def _collected(
    found: SimpleQueue[tuple[str, str]], expected: int, deadline: float
) -> dict[str, str]:
    names = {}
    with suppress(Empty):
        for _ in range(expected):
            address, name = found.get(timeout=max(0.0, deadline - time.monotonic()))
            if name:
                names[address] = name
    return names
