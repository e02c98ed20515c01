"""`vllmwall snapshot`: the node as observed, redacted, for a bug report or a test."""

from __future__ import annotations

import platform

from vllmwall import __version__
from vllmwall.api.errors import Json
from vllmwall.engine.state import State
from vllmwall.observe.snapshot import dump


def snapshot(state: State, _: Json) -> Json:
    """The node as it was last read and events told since."""
    host_facts = {"kernel": platform.release(), "version": __version__}
    return {"snapshot": dump(state.reconciler.observer.node(), host_facts=host_facts)}
