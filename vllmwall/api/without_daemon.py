"""The walls put up or taken down once, where no daemon runs."""

from __future__ import annotations

import time
from pathlib import Path
from types import MappingProxyType

from vllmwall.api.errors import Json
from vllmwall.api.plan import plan_json
from vllmwall.api.shapes import PlanJson
from vllmwall.api.ssh_check import refuse_lockout
from vllmwall.api.status import Status, status_of
from vllmwall.config import DROP_INS, load
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.engine.options import DOWN_MARKER
from vllmwall.engine.reconciler import Reconciler, remove_everywhere
from vllmwall.linux.netns import OWN
from vllmwall.model import Wall
from vllmwall.networks.banlist import FILE_NAME, BanList
from vllmwall.networks.peerlist import PeerList
from vllmwall.observe.namespaces import inode_of_name

NOBODY: Json = MappingProxyType({})


def up_once(
    config_path: Path, runtime_dir: Path, only: tuple[str, ...] = (), arguments: Json = NOBODY
) -> Status:
    """One full pass; its status. Raises ConfigError, OSError, EnforceError, and ControlError
    where it would end the ssh connection that ``arguments`` name."""
    config = load(config_path).settings()
    runtime_dir.mkdir(parents=True, exist_ok=True)
    peers = PeerList(config.peers, runtime_dir, config_path.parent / DROP_INS)
    peers.refresh(peers.now())
    bans = BanList(runtime_dir / FILE_NAME)
    keeper = Reconciler(config, peers, Nftables(), frozenset(map(inode_of_name, only)), bans=bans)
    if arguments.get("ssh"):
        keeper.observer.observe()
        spaces = keeper.plan(config, peers.networks())
        refuse_lockout(arguments, spaces, keeper)
    (runtime_dir / DOWN_MARKER).unlink(missing_ok=True)
    keeper.full_pass()
    return status_of(keeper.status(time.time(), ["no daemon runs: new ports stay open"]))


def plan_once(config_path: Path, runtime_dir: Path, only: tuple[str, ...] = ()) -> PlanJson:
    """What `up_once` would change. Raises ConfigError and OSError."""
    config = load(config_path).settings()
    peers = PeerList(config.peers, runtime_dir, config_path.parent / DROP_INS)
    bans = BanList(runtime_dir / FILE_NAME)
    keeper = Reconciler(config, peers, Nftables(), frozenset(map(inode_of_name, only)), bans=bans)
    keeper.observer.observe()
    return plan_json(keeper.plan(config, peers.networks()), ["no daemon runs"])


def standing_here() -> Wall | None:
    """The wall in the network namespace that we are in. Raises OSError and EnforceError."""
    return Nftables().read_back(OWN)


def down_once(runtime_dir: Path, only: tuple[str, ...] = ()) -> list[int]:
    """Remove every wall of ours on this machine; the namespaces (inodes) that had one.

    Needs no configuration and no daemon. A daemon that starts later leaves them down.
    Raises OSError and EnforceError.
    """
    runtime_dir.mkdir(parents=True, exist_ok=True)
    (runtime_dir / DOWN_MARKER).touch()
    return remove_everywhere(Nftables(), frozenset(map(inode_of_name, only)))
