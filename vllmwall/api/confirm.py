"""Changes that hold only if they are confirmed: reload, up, confirm, rollback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vllmwall.api.server import ControlError, Json
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.facts import ConfigProblem
from vllmwall.engine.trial import forget, noted

if TYPE_CHECKING:
    from vllmwall.daemon.loop import Daemon


def confirm(daemon: Daemon, _: Json) -> Json:
    """Keep the change that was made on trial."""
    waiting = noted(daemon.options.runtime_dir)
    if waiting is None:
        raise ControlError("failed", "nothing waits to be confirmed: it was, or its time is over")
    forget(daemon.options.runtime_dir)
    daemon.on_trial = None
    daemon.log(EventKey.CHANGE_CONFIRMED, change=waiting.what)
    return {"version": 1, "confirmed": waiting.what}


def rollback(daemon: Daemon, arguments: Json) -> Json:
    """Take back the change with this token, if nobody has confirmed it."""
    waiting = noted(daemon.options.runtime_dir)
    if waiting is None or waiting.token != arguments.get("token"):
        return {"version": 1, "rolled_back": ""}
    before, daemon.on_trial = daemon.on_trial, None
    forget(daemon.options.runtime_dir)
    if waiting.what == "reload" and before is not None:
        file, why = str(daemon.options.config), "taken back: nobody confirmed it in time"
        daemon.config_problems = (ConfigProblem(file, "", f"{why}; what was before is in force"),)
        daemon.keeper.configure(before)
        daemon.keeper.peers.configure(before.peers)
        daemon.keeper.peers.refresh(daemon.keeper.peers.now())
        daemon.full_pass("rollback")
    else:
        daemon.set_down(is_down=True)
    daemon.log(EventKey.CHANGE_ROLLED_BACK, change=waiting.what)
    return {"version": 1, "rolled_back": waiting.what}
