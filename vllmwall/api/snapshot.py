"""`vllmwall snapshot`: the node as observed, redacted, for a bug report or a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllmwall import __version__
from vllmwall.api.errors import NoArguments

if TYPE_CHECKING:
    from vllmwall.engine.state import State


@dataclass(frozen=True)
class NodeSnapshot:
    """The node as `vllmwall.observe.snapshot` writes it."""

    snapshot: Mapping[str, object]


def snapshot(state: State, _: NoArguments) -> NodeSnapshot:
    """The node as it was last read, and as events changed it since."""
    import platform

    from vllmwall.observe.snapshot import dump  # the command line needs only the answer's type

    host_facts = {"kernel": platform.release(), "version": __version__}
    return NodeSnapshot(dump(state.reconciler.observer.node(), host_facts=host_facts))
