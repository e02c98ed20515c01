"""Waiting for a condition with a deadline; no test sleeps for a fixed time instead."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 30.0 * float(os.environ.get("VLLMWALL_PATIENCE", "1"))
"""Seconds; what is waited for takes milliseconds, on a starved or emulated machine it can take
long."""


def eventually(
    condition: Callable[[], object],
    what: str,
    log: Path | Callable[[], str] | None = None,
    patience: float = PATIENCE,
) -> None:
    """Wait until it holds. Raises AssertionError, with the log, when it does not in time."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            text = log.read_text() if isinstance(log, Path) else log() if log else ""
            raise AssertionError(f"not within {patience:g} s: {what}\n{text}")
        time.sleep(0.02)
