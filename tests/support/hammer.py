"""Hammering a port from another process: thousands of attempts a second, each one counted."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.lab import Host

_PROGRAM = Path(__file__).parents[1] / "workloads/hammer.py"
_LONGER_THAN_ANY_TEST = 600.0  # seconds


@dataclass
class Attempts:
    """How often a hammer tried, and how often somebody answered; known when it has ended."""

    tried: int = 0
    opened: int = 0


@contextlib.contextmanager
def hammering(host: Host, proto: str, door: tuple[str, int]) -> Iterator[Attempts]:
    """Let a host hammer a port until the end of the block."""
    argv = [sys.executable, str(_PROGRAM), proto, door[0], str(door[1]), str(_LONGER_THAN_ANY_TEST)]
    process = host.popen(argv)
    assert process.stdout
    assert "hammering\n" == process.stdout.readline()
    attempts = Attempts()
    yield attempts
    process.terminate()
    attempts.tried, attempts.opened = map(int, process.stdout.read().split())


def hammer(
    host: Host, proto: str, door: tuple[str, int], seconds: float, meanwhile: Callable[[], None]
) -> tuple[int, int]:
    """Let a host hammer a port while we do something again and again.

    Returns how often it tried, and how often somebody answered.
    """
    end = time.monotonic() + seconds
    with hammering(host, proto, door) as attempts:
        while time.monotonic() < end:
            meanwhile()
    return attempts.tried, attempts.opened
