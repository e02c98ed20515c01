"""Changes that hold only if they are confirmed: reload, up, confirm, rollback."""

from __future__ import annotations

from dataclasses import replace

from vllmwall.api.errors import ControlError, Json
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.facts import ConfigProblem
from vllmwall.engine.state import State
from vllmwall.engine.trial import forget, noted


def confirm(state: State, _: Json) -> Json:
    """Keep the change that was made on trial."""
    waiting = noted(state.options.runtime_dir)
    if waiting is None:
        raise ControlError("failed", "nothing waits to be confirmed: it was, or its time is over")
    forget(state.options.runtime_dir)
    state.on_trial = None
    state.log(EventKey.CHANGE_CONFIRMED, change=waiting.what)
    return {"version": 1, "confirmed": waiting.what}


def rollback(state: State, arguments: Json) -> Json:
    """Take back the change with this token, if nobody has confirmed it."""
    waiting = noted(state.options.runtime_dir)
    if waiting is None or waiting.token != arguments.get("token"):
        return {"version": 1, "rolled_back": ""}
    before, state.on_trial = state.on_trial, None
    forget(state.options.runtime_dir)
    if waiting.what == "reload" and before is not None:
        file, why = str(state.options.config), "taken back: nobody confirmed it in time"
        problem = ConfigProblem(file, "", f"{why}; the previous configuration is active")
        state.config = replace(state.config, problems=(problem,))
        state.reconciler.configure(before)
        state.reconciler.peers.configure(before.peers)
        state.reconciler.peers.refresh(state.reconciler.peers.now())
        state.loop.full_pass("rollback")
    else:
        state.set_down(is_down=True)
    state.log(EventKey.CHANGE_ROLLED_BACK, change=waiting.what)
    return {"version": 1, "rolled_back": waiting.what}
