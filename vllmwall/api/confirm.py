"""`vllmwall confirm` and the rollback of changes that are not confirmed in time."""

from __future__ import annotations

from dataclasses import replace

from vllmwall.api.changes import Confirmed, RollbackRequest, RolledBack
from vllmwall.api.errors import ControlError, NoArguments
from vllmwall.api.later import Later
from vllmwall.api.plan import TOO_MANY_REQUESTS
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.facts import ConfigProblem
from vllmwall.engine.state import ReloadRequest, State
from vllmwall.engine.trial import forget, noted


def confirm(state: State, _: NoArguments) -> Confirmed:
    """Keep the change that was made on trial."""
    waiting = noted(state.options.runtime_dir)
    if waiting is None:
        raise ControlError("failed", "no change is waiting: it was confirmed, or its time is over")
    forget(state.options.runtime_dir)
    state.on_trial = None
    state.log(EventKey.CHANGE_CONFIRMED, change=waiting.what)
    return Confirmed(confirmed=waiting.what)


def rollback(state: State, request: RollbackRequest) -> RolledBack | Later[RolledBack]:
    """Undo the change on trial, if it is not confirmed."""
    waiting = noted(state.options.runtime_dir)
    if waiting is None or waiting.token != request.token:
        return RolledBack(rolled_back="")
    before, state.on_trial = state.on_trial, None
    forget(state.options.runtime_dir)
    if waiting.what != "reload" or before is None:
        state.set_down(is_down=True)
        return _rolled_back(state, waiting.what)
    later: Later[RolledBack] = Later()

    def done(_: Exception | None) -> None:
        file, why = str(state.options.config), "undone, because it was not confirmed in time"
        problem = ConfigProblem(file, "", f"{why}; the previous configuration is active")
        state.config = replace(state.config, problems=(problem,))
        later.settle(lambda: _rolled_back(state, "reload"))

    if not state.loop.reload(ReloadRequest(done, settings=before)):
        raise TOO_MANY_REQUESTS
    return later


def _rolled_back(state: State, what: str) -> RolledBack:
    state.log(EventKey.CHANGE_ROLLED_BACK, change=what)
    return RolledBack(rolled_back=what)
