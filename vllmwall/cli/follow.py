"""Asking again every second, until somebody has seen enough."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

SECONDS = 1.0


def ticks(seconds: float = SECONDS) -> Iterator[float]:
    """The time (seconds since the epoch), now and every ``seconds``."""
    due = time.monotonic()
    while True:
        yield time.time()
        due = max(due + seconds, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def say_started() -> None:
    """After the first look: what comes from now on is shown."""
    click.echo("Watching; Ctrl-C ends it.", err=True)


def print_line(value: object) -> None:
    """One JSON object a line, at once."""
    click.echo(json.dumps(value))
    sys.stdout.flush()


@contextmanager
def until_enough() -> Iterator[None]:
    """Ctrl-C and a reader that went away end the command well."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(0)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
