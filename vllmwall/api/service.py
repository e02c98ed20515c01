"""`vllmwall reload`, `up` and `down`: the walls as configured, put up or removed."""

from __future__ import annotations

from vllmwall.api.change_shapes import CHANGES_VERSION
from vllmwall.api.errors import ControlError, Json
from vllmwall.api.plan import wanted_on_disk
from vllmwall.api.status import status
from vllmwall.config import ConfigError
from vllmwall.engine.state import State


def reload(state: State, arguments: Json) -> Json:
    """Read the configuration again; its status. With ``unconfirmed`` it is on trial."""
    before = state.reconciler.config
    if arguments.get("ssh"):
        from vllmwall.api.ssh_check import refuse_lockout

        refuse_lockout(arguments, wanted_on_disk(state), state.reconciler)
    try:
        state.loop.reload()
    except ConfigError as error:
        raise ControlError("failed", str(error), "The configuration in force stays.") from error
    if arguments.get("unconfirmed"):
        state.on_trial = state.on_trial or before
    return status(state, {})


def up(state: State, arguments: Json) -> Json:
    """Put the walls up again; the status."""
    reconciler = state.reconciler
    if arguments.get("ssh"):
        from vllmwall.api.ssh_check import refuse_lockout

        spaces = reconciler.plan(reconciler.config, reconciler.peers.networks())
        refuse_lockout(arguments, spaces, reconciler)
    state.set_down(is_down=False)
    return status(state, {})


def down(state: State, _: Json) -> Json:
    """Remove every wall and keep them removed; the namespaces (inodes) that had one."""
    return {"version": CHANGES_VERSION, "removed": state.set_down(is_down=True)}
