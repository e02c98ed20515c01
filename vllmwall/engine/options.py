"""What the daemon is told when it starts."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from vllmwall.config import DEFAULT_PATH
from vllmwall.networks.banlist import FILE_NAME

RUNTIME_DIRECTORY = Path("/run/vllmwall")
DOWN_MARKER = "down"  # a file there: the walls are down on request


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

    @property
    def instance(self) -> str:
        """The name of the tracefs instance: one a runtime directory, so that a stale one can be
        taken over."""
        if self.runtime_dir == RUNTIME_DIRECTORY:
            return "vllmwall"
        return f"vllmwall-{zlib.crc32(os.fsencode(self.runtime_dir)):08x}"

    @property
    def ban_files(self) -> tuple[Path, ...]:
        """Where bans are kept: for the next daemon, and with the wall for the next boot."""
        folders = [self.runtime_dir]
        if self.state_file is not None:
            folders.append(self.state_file.parent)
        return tuple(folder / FILE_NAME for folder in folders)
