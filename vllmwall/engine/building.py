"""The reconciler that options and settings describe, for the daemon and without one."""

from __future__ import annotations

from pathlib import Path

from vllmwall.config.settings import Settings
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.engine.adoption import Adoption
from vllmwall.engine.api_ports import ApiPorts
from vllmwall.engine.options import DOWN_MARKER, Options
from vllmwall.engine.reconciler import Reconciler
from vllmwall.linux.places import DROP_INS
from vllmwall.networks.banlist import BanList
from vllmwall.networks.peerlist import PeerList
from vllmwall.observe.namespaces import inode_of_name


def reconciler_for(
    options: Options, config: Settings, armed_file: Path | None = None
) -> Reconciler:
    """A reconciler with the peers, bans and choice of `down` in the options' folders.

    Raises OSError where a namespace of the options does not exist.
    """
    conf_d = options.config.parent / DROP_INS
    return Reconciler(
        config=config,
        peers=PeerList(config.peers, options.runtime_dir, conf_d),
        backend=Nftables(),
        only=frozenset(map(inode_of_name, options.only_namespaces)),
        down=(options.runtime_dir / DOWN_MARKER).exists(),
        armed_file=armed_file,
        bans=BanList(*options.ban_files),
        apis=ApiPorts(options.runtime_dir, conf_d),
        adoption=Adoption(options.runtime_dir, options.state_file),
    )
