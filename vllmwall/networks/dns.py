"""Peers from DNS names, with a time limit, which getaddrinfo does not have.

Each lookup runs in a thread of its own. A name whose lookup hangs keeps its one thread; no second
one is started.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network
from threading import Thread

from vllmwall.cidr import distinct
from vllmwall.model import Network

Lookup = Callable[[str], tuple[Network, ...]]


def look_up(name: str) -> tuple[Network, ...]:
    """The A and AAAA records of ``name``, each as a network of one address. Raises OSError."""
    answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    # A zone (fe80::1%eth0) says which interface to send on; no rule can use it.
    return distinct(ip_network(str(answer[4][0]).partition("%")[0]) for answer in answers)


class NoAnswerError(Exception):
    """A name did not resolve. The message says why."""


@dataclass
class Lookups:
    """Lookups of names. `answers` waits at most ``seconds`` for all of them."""

    lookup: Lookup = look_up
    seconds: float = 5.0
    _running: dict[str, _Running] = field(default_factory=dict)

    def answers(self, names: Iterable[str]) -> dict[str, tuple[Network, ...] | NoAnswerError]:
        """The networks of each name, or why there are none. Not thread-safe."""
        deadline = time.monotonic() + self.seconds
        for name in names:
            if name not in self._running:
                self._running[name] = _Running(name, self.lookup)
        return {name: self._answer(name, deadline) for name in names}

    def _answer(self, name: str, deadline: float) -> tuple[Network, ...] | NoAnswerError:
        running = self._running[name]
        running.thread.join(max(0.0, deadline - time.monotonic()))
        if running.thread.is_alive():
            return NoAnswerError(f"{name}: no answer within {self.seconds:g} s")
        del self._running[name]
        return running.answer


class _Running:
    """One lookup in progress."""

    def __init__(self, name: str, lookup: Lookup) -> None:
        self.answer: tuple[Network, ...] | NoAnswerError = NoAnswerError(f"{name}: no answer")
        self.thread = Thread(target=self._run, args=(name, lookup), name="dns", daemon=True)
        self.thread.start()

    def _run(self, name: str, lookup: Lookup) -> None:
        try:
            found = lookup(name)
        except Exception as error:  # an answer that is none must not end in a traceback
            self.answer = NoAnswerError(f"{name} does not resolve: {_reason(error)}")
            return
        if found:
            self.answer = found


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
