"""The walls put up or taken down once, where no daemon runs."""

from __future__ import annotations

import time
from pathlib import Path

from vllmwall.config import DEFAULT_PATH, DROP_INS, load
from vllmwall.control import Json
from vllmwall.enforce.nftables import Nftables
from vllmwall.observe.namespaces import every_namespace
from vllmwall.passes import WallKeeper
from vllmwall.peers import PeerList
from vllmwall.report.status import status_json

RUNTIME_DIRECTORY = Path("/run/vllmwall")
DOWN_MARKER = "down"


def up_once(config_path: Path = DEFAULT_PATH) -> Json:
    """One full pass; its status. Raises ConfigError and OSError."""
    (RUNTIME_DIRECTORY / DOWN_MARKER).unlink(missing_ok=True)
    config = load(config_path)
    peers = PeerList(config.peers, RUNTIME_DIRECTORY, config_path.parent / DROP_INS)
    peers.refresh(time.time())
    keeper = WallKeeper(config, peers, Nftables())
    keeper.full_pass()
    return status_json(keeper.status(time.time(), ["no daemon runs: new ports stay open"]))


def down_once() -> list[int]:
    """Remove every wall of ours on this machine; the namespaces (inodes) that had one.

    Needs no configuration and no daemon. A daemon that starts later leaves them down.
    """
    RUNTIME_DIRECTORY.mkdir(exist_ok=True)
    (RUNTIME_DIRECTORY / DOWN_MARKER).touch()
    backend = Nftables()
    return [inode for inode, path in every_namespace().items() if backend.remove(path)]
