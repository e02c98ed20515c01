"""The daemon's command line."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from vllmwall.config import DEFAULT_PATH
from vllmwall.config.reading import Reading
from vllmwall.linux.places import RUNTIME_DIRECTORY
from vllmwall.networks.banlist import FILE_NAME

DOWN_MARKER = "down"  # a file there: the walls are down on request


@dataclass(frozen=True)
class Options:
    """The options of `vllmwall daemon`.

    ``state_file`` keeps the wall for the next boot; None: it is not kept.
    """

    config: Path = DEFAULT_PATH
    runtime_dir: Path = RUNTIME_DIRECTORY
    only_namespaces: tuple[str, ...] = ()
    log: str | None = None
    log_level: str | None = None
    state_file: Path | None = None

    @property
    def instance(self) -> str:
        """The name of the tracefs instance: one for each runtime directory."""
        if self.runtime_dir == RUNTIME_DIRECTORY:
            return "vllmwall"
        return f"vllmwall-{zlib.crc32(os.fsencode(self.runtime_dir)):08x}"

    @property
    def ban_files(self) -> tuple[Path, ...]:
        """The files that keep bans: for the next daemon, and with the wall for the next boot."""
        folders = [self.runtime_dir]
        if self.state_file is not None:
            folders.append(self.state_file.parent)
        return tuple(folder / FILE_NAME for folder in folders)


@dataclass(frozen=True)
class Start:
    """What the daemon starts with: its options, and the configuration that they name."""

    options: Options
    reading: Reading
