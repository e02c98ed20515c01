"""Hammer one port: ``hammer.py tcp|udp ADDRESS PORT SECONDS``, or until SIGTERM.

Prints "hammering" when it begins; in the end how often it tried and how often somebody answered.
"""

import select
import signal
import socket
import sys
import time

_BATCH = 100  # connections at a time
_ANSWER = 0.03  # seconds for a batch; an answer on the lab's link takes far less than 1 ms


class Hammer:
    """Counts what it tries until its time is over."""

    def __init__(self, address: str, port: int, seconds: float) -> None:
        self.door = (address, port)
        self.family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.end = time.monotonic() + seconds
        self.tried = self.opened = 0
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: object) -> None:
        self.end = 0

    def tcp(self) -> None:
        """Connect, a batch at a time."""
        while time.monotonic() < self.end:
            batch = [self._connecting() for _ in range(_BATCH)]
            self._count(batch)
            for one in batch:
                one.close()

    def _connecting(self) -> socket.socket:
        made = socket.socket(self.family, socket.SOCK_STREAM)
        made.setblocking(False)
        made.connect_ex(self.door)
        self.tried += 1
        return made

    def _count(self, batch: list[socket.socket]) -> None:
        poll = select.poll()
        waiting = {one.fileno(): one for one in batch}
        for number in waiting:
            poll.register(number, select.POLLOUT)
        deadline = time.monotonic() + _ANSWER
        while time.monotonic() < deadline:
            for number, _ in poll.poll(5):
                error = waiting[number].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                self.opened += error == 0
                poll.unregister(number)

    def udp(self) -> None:
        """Send as fast as the way takes it, and count what comes back."""
        with socket.socket(self.family, socket.SOCK_DGRAM) as made:
            made.connect(self.door)
            made.setblocking(False)
            while time.monotonic() < self.end:
                self._send(made)
                self._receive(made)

    def _send(self, made: socket.socket) -> None:
        try:
            for _ in range(200):
                made.send(b"let me in")
                self.tried += 1
        except BlockingIOError:  # the way is full
            pass

    def _receive(self, made: socket.socket) -> None:
        try:
            while made.recv(64):
                self.opened += 1
        except BlockingIOError:
            pass


if __name__ == "__main__":
    hammer = Hammer(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    print("hammering", flush=True)
    {"tcp": hammer.tcp, "udp": hammer.udp}[sys.argv[1]]()
    print(hammer.tried, hammer.opened)
