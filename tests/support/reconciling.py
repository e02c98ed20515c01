"""The walls of a node kept in the process of the test, without a daemon."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.support.guarded import Guarded
from vllmwall.config import load
from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.engine.reconciler import Reconciler
from vllmwall.linux.netns import inode_of
from vllmwall.model import Wall
from vllmwall.networks.peerlist import PeerList


class Refusing(Nftables):
    """The real backend, made to refuse changes as a kernel without memory does."""

    def __init__(self) -> None:
        super().__init__("others shall edit it")
        self.refusals = 0
        self.whole_replacements = 0

    def apply(self, path: str, wall: Wall, standing: Wall | None) -> Wall:
        """As the real one, after the refusals."""
        self.whole_replacements += standing is None
        if self.refusals > 0:
            self.refusals -= 1
            raise EnforceError("Error: Could not process rule: Cannot allocate memory")
        return super().apply(path, wall, standing)


@contextlib.contextmanager
def kept(node: Guarded, backend: Nftables | None = None) -> Iterator[Reconciler]:
    """A keeper of this node alone, as its configuration says."""
    config = load(node.config).settings()
    only = frozenset({inode_of(node.lab.node.path)})
    peers = PeerList(config.peers, node.folder)
    keeper = Reconciler(config, peers, backend or Nftables(), only)
    try:
        yield keeper
    finally:
        keeper.observer.namespaces.close()
