"""`vllmwall reload`, `up` and `down`: the walls as configured, put up or removed."""

from __future__ import annotations

from vllmwall.api.changes import ChangeRequest, RemovedWalls
from vllmwall.api.errors import NoArguments
from vllmwall.api.later import Later
from vllmwall.api.plan import TOO_MANY_REQUESTS, planned_walls, unusable
from vllmwall.api.status import status_of
from vllmwall.api.status_answer import Status
from vllmwall.config import ConfigError
from vllmwall.config.settings import Settings
from vllmwall.engine.state import ReloadRequest, State


def reload(state: State, request: ChangeRequest) -> Later[Status]:
    """Read the configuration again and apply it; the status after that."""
    later: Later[Status] = Later()
    earlier = state.on_trial

    def check(config: Settings) -> None:
        if request.ssh:
            from vllmwall.api.ssh_check import refuse_lockout

            refuse_lockout(request, planned_walls(state, config), state.reconciler)

    def done(error: Exception | None) -> None:
        if error is not None:
            state.on_trial = earlier
        later.settle(lambda: _reloaded(state, error))

    if request.unconfirmed:  # from now on: its time can end before the files are read
        state.on_trial = earlier or state.reconciler.config
    if not state.loop.reload(ReloadRequest(done, check, later.is_wanted)):
        state.on_trial = earlier
        raise TOO_MANY_REQUESTS
    return later


def _reloaded(state: State, error: Exception | None) -> Status:
    if isinstance(error, ConfigError):
        raise unusable(error) from error
    if error is not None:
        raise error
    return status_of(state.status())


def up(state: State, request: ChangeRequest) -> Status:
    """Put the walls up again; the status."""
    reconciler = state.reconciler
    if request.ssh:
        from vllmwall.api.ssh_check import refuse_lockout

        spaces = reconciler.plan(reconciler.config, reconciler.peers.networks())
        refuse_lockout(request, spaces, reconciler)
    state.set_down(is_down=False)
    return status_of(state.status())


def down(state: State, _: NoArguments) -> RemovedWalls:
    """Remove every wall and keep them removed."""
    return RemovedWalls(removed=tuple(state.set_down(is_down=True)))
