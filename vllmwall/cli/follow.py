"""Commands that ask repeatedly until Ctrl-C."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from vllmwall.linux.wire import encode

SECONDS = 1.0


def ticks(seconds: float = SECONDS) -> Iterator[float]:
    """The time (seconds since the epoch), now and every ``seconds``."""
    due = time.monotonic()
    while True:
        yield time.time()
        due = max(due + seconds, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def report_start() -> None:
    """Print that the first answer has come: every change after it is printed."""
    click.echo("Watching. Press Ctrl-C to stop.", err=True)


def print_line(value: object) -> None:
    """One JSON object in a line, flushed."""
    click.echo(json.dumps(encode(value)))
    sys.stdout.flush()


@contextmanager
def until_enough() -> Iterator[None]:
    """End the command with status 0 at Ctrl-C, and when the reader of a pipe has gone."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(0)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
