"""Changes that hold only if they are confirmed: reload, up, confirm, rollback."""

from __future__ import annotations

from dataclasses import replace

from vllmwall.api.errors import ControlError, Json
from vllmwall.api.later import Later
from vllmwall.api.plan import TOO_MANY_REQUESTS
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.facts import ConfigProblem
from vllmwall.engine.state import ReloadRequest, State
from vllmwall.engine.trial import forget, noted


def confirm(state: State, _: Json) -> Json:
    """Keep the change that was made on trial."""
    waiting = noted(state.options.runtime_dir)
    if waiting is None:
        raise ControlError("failed", "no change is waiting: it was confirmed, or its time is over")
    forget(state.options.runtime_dir)
    state.on_trial = None
    state.log(EventKey.CHANGE_CONFIRMED, change=waiting.what)
    return {"version": 1, "confirmed": waiting.what}


def rollback(state: State, arguments: Json) -> Json | Later[Json]:
    """Take back the change with this token, if nobody has confirmed it."""
    waiting = noted(state.options.runtime_dir)
    if waiting is None or waiting.token != arguments.get("token"):
        return {"version": 1, "rolled_back": ""}
    before, state.on_trial = state.on_trial, None
    forget(state.options.runtime_dir)
    if waiting.what != "reload" or before is None:
        state.set_down(is_down=True)
        return _rolled_back(state, waiting.what)
    later: Later[Json] = Later()

    def done(_: Exception | None) -> None:
        file, why = str(state.options.config), "taken back: nobody confirmed it in time"
        problem = ConfigProblem(file, "", f"{why}; the previous configuration is active")
        state.config = replace(state.config, problems=(problem,))
        later.settle(lambda: _rolled_back(state, "reload"))

    if not state.loop.reload(ReloadRequest(done, settings=before)):
        raise TOO_MANY_REQUESTS
    return later


def _rolled_back(state: State, what: str) -> Json:
    state.log(EventKey.CHANGE_ROLLED_BACK, change=what)
    return {"version": 1, "rolled_back": what}
