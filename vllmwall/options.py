"""What the daemon is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vllmwall.config import DEFAULT_PATH

RUNTIME_DIRECTORY = Path("/run/vllmwall")


@dataclass(frozen=True)
class Options:
    """What `vllmwall daemon` was told on the command line.

    ``state_file`` keeps the wall for the next boot; None: nothing does.
    """

    config: Path = DEFAULT_PATH
    runtime_dir: Path = RUNTIME_DIRECTORY
    only_namespaces: tuple[str, ...] = ()
    log: str | None = None
    log_level: str | None = None
    state_file: Path | None = None
