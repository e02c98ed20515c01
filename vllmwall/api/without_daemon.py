"""The walls applied or removed once, where no daemon runs."""

from __future__ import annotations

import time
from pathlib import Path

from vllmwall.api.changes import ChangeRequest
from vllmwall.api.plan import plan_of
from vllmwall.api.plan_answer import Plan
from vllmwall.api.ssh_check import refuse_lockout
from vllmwall.api.status import status_of
from vllmwall.api.status_answer import Status
from vllmwall.config import load
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.engine.building import reconciler_for
from vllmwall.engine.options import DOWN_MARKER, Options
from vllmwall.engine.reconciler import Reconciler
from vllmwall.engine.wall_facts import remove_everywhere
from vllmwall.linux.netns import OWN
from vllmwall.model import Wall
from vllmwall.observe.namespaces import inode_of_name


def _reconciler(config_path: Path, runtime_dir: Path, only: tuple[str, ...]) -> Reconciler:
    config = load(config_path).settings()
    return reconciler_for(Options(config_path, runtime_dir, only), config)


def up_once(
    config_path: Path,
    runtime_dir: Path,
    only: tuple[str, ...] = (),
    request: ChangeRequest = ChangeRequest(),  # noqa: B008 (frozen)
) -> Status:
    """One full pass; its status. Raises ConfigError, OSError, EnforceError, and ControlError
    where it would end the ssh connection of the request."""
    runtime_dir.mkdir(parents=True, exist_ok=True)
    reconciler = _reconciler(config_path, runtime_dir, only)
    peers = reconciler.peers
    peers.refresh(peers.now())
    if request.ssh:
        reconciler.observer.observe()
        spaces = reconciler.plan(reconciler.config, peers.networks())
        refuse_lockout(request, spaces, reconciler)
    (runtime_dir / DOWN_MARKER).unlink(missing_ok=True)
    reconciler.down = False
    reconciler.full_pass()
    return status_of(reconciler.status(time.time(), ["no daemon runs: new ports stay open"]))


def plan_once(config_path: Path, runtime_dir: Path, only: tuple[str, ...] = ()) -> Plan:
    """What `up_once` would change. Raises ConfigError and OSError."""
    reconciler = _reconciler(config_path, runtime_dir, only)
    reconciler.observer.observe()
    spaces = reconciler.plan(reconciler.config, reconciler.peers.networks())
    return plan_of(spaces, ["no daemon runs"])


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
