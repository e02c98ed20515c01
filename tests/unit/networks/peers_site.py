"""A node with directories of its own, a clock that a test turns, and DNS that it answers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

from vllmwall.config import load
from vllmwall.config.settings import Settings
from vllmwall.model import Network
from vllmwall.networks.dns import Lookups
from vllmwall.networks.peerlist import PeerList

START = 1_000_000.0


@dataclass
class Site:
    """Everything outside of a PeerList that it depends on."""

    root: Path
    now: float = START
    answers: dict[str, tuple[str, ...] | Exception] = field(default_factory=dict)

    @property
    def main(self) -> Path:
        """The main configuration file."""
        return self.root / "etc" / "vllmwall.toml"

    @property
    def saved(self) -> Path:
        """What `peers add --save` writes."""
        return self.root / "etc" / "conf.d" / "90-peers-saved.toml"

    @property
    def state(self) -> Path:
        """What outlives the daemon."""
        return self.root / "run" / "peers.json"

    def look_up(self, name: str) -> tuple[Network, ...]:
        """DNS as the test wants it."""
        answer = self.answers.get(name, OSError(-2, "Name or service not known"))
        if isinstance(answer, Exception):
            raise answer
        return tuple(map(ip_network, answer))

    def config(self, text: str = "") -> Settings:
        """Write the main file, and load it with its drop-ins."""
        write(self.main, text)
        return load(self.main).settings()

    def peers(self, text: str = "") -> PeerList:
        """The peers of a daemon that starts now."""
        return PeerList(
            self.config(text).peers,
            self.root / "run",
            self.root / "etc" / "conf.d",
            clock=lambda: self.now,
            lookups=Lookups(self.look_up),
        )


def write(path: Path, text: str) -> Path:
    """Write a file that can be trusted."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    os.utime(path, (START, START))  # long ago: nobody is writing it
    return path


def texts(networks: Iterable[Network]) -> list[str]:
    """Networks as people write them."""
    return list(map(str, networks))


def nets(*names: str) -> tuple[Network, ...]:
    """Networks by their text."""
    return tuple(map(ip_network, names))
