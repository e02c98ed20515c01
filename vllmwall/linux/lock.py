"""One daemon a runtime directory: two would undo each other's walls."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone_in(directory: Path) -> Iterator[bool]:
    """Hold the directory's lock; False when another process has it.

    The directory is made when it is missing. Raises OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
