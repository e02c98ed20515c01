"""The newest events: the commands `events` and `watch`."""

from __future__ import annotations

from vllmwall.api.errors import ControlError, Json
from vllmwall.api.events_answer import events_json
from vllmwall.engine.state import State

_MOST = 500


def events(state: State, arguments: Json) -> Json:
    """The events after number ``after`` of ``epoch``, the oldest first; without ``after`` the
    newest ``most``. 500 at most in one answer."""
    most, after = _number(arguments, "most", _MOST), _number(arguments, "after", -1)
    most = min(most, _MOST)
    if after < 0:
        return events_json(state.event_log.last(most))
    return events_json(state.event_log.since(after, str(arguments.get("epoch", "")), most))


def _number(arguments: Json, key: str, default: int) -> int:
    value = arguments.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ControlError("bad-request", f"{key}: a whole number is needed")
    return value
