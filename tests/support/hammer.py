"""Hammering a port from another process: thousands of attempts a second, each one counted."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tests.support.lab import Host

# Both print how much they tried and how often somebody answered.
HAMMERS = {
    "tcp": """
import select, socket, sys, time
address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
tried = opened = 0
end = time.monotonic() + seconds
print("hammering", flush=True)
while time.monotonic() < end:
    poll = select.poll()
    batch = {}
    for _ in range(100):
        s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        s.setblocking(False)
        s.connect_ex((address, port))
        batch[s.fileno()] = s
        poll.register(s, select.POLLOUT)
        tried += 1
    poll_end = time.monotonic() + 0.03
    while time.monotonic() < poll_end:
        for number, _ in poll.poll(5):
            opened += batch[number].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            poll.unregister(number)
    for s in batch.values():
        s.close()
print(tried, opened)
""",
    "udp": """
import socket, sys, time
address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
s.connect((address, port))
s.setblocking(False)
tried = opened = 0
end = time.monotonic() + seconds
print("hammering", flush=True)
while time.monotonic() < end:
    try:
        for _ in range(200):
            s.send(b"let me in")
            tried += 1
    except BlockingIOError:  # the way is full
        pass
    try:
        while s.recv(64):
            opened += 1
    except BlockingIOError:
        pass
print(tried, opened)
""",
}


def hammer(
    host: Host, proto: str, door: tuple[str, int], seconds: float, meanwhile: Callable[[], None]
) -> tuple[int, int]:
    """Let a host hammer a port while we do something again and again.

    Returns how often it tried, and how often somebody answered."""
    argv = [sys.executable, "-c", HAMMERS[proto], door[0], str(door[1]), str(seconds)]
    process = host.popen(argv)
    assert process.stdout
    assert process.stdout.readline() == "hammering\n"
    end = time.monotonic() + seconds - 0.2
    while time.monotonic() < end:
        meanwhile()
    tried, opened = map(int, process.stdout.read().split())
    return tried, opened
