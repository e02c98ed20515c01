"""The table of commands: each row leads to its types and its handler."""

from __future__ import annotations

from typing import Union, get_args, get_origin, get_type_hints

import pytest

from vllmwall.api import commands
from vllmwall.api.commands import COMMANDS, Access, Command
from vllmwall.api.later import Later
from vllmwall.engine.event_log import LoggedEvent
from vllmwall.engine.state import State

NAMES = {"State": State, "LoggedEvent": LoggedEvent}


@pytest.mark.parametrize("row", COMMANDS.values(), ids=list(COMMANDS))
def test_a_handler_takes_and_gives_what_its_row_says(row: Command[object, object]) -> None:
    """So that client, server and the tests' fake check what the handler relies on."""
    handler = row.load()
    hints = get_type_hints(handler, localns=NAMES)
    answer = hints.pop("return")
    assert [State, row.request_type] == list(hints.values())
    answers = get_args(answer) if get_origin(answer) is Union else (answer,)
    kinds = {get_args(one)[0] if get_origin(one) is Later else one for one in answers}
    assert kinds == {row.answer_type}


def test_every_row_is_in_the_table() -> None:
    """A row that is not in it can be asked for by nobody."""
    rows = [one for one in vars(commands).values() if isinstance(one, Command)]
    assert {id(one) for one in rows} == {id(one) for one in COMMANDS.values()}


def test_what_changes_something_is_for_root() -> None:
    """A member of the control group reads, and guards its own job."""
    readers = {name for name, row in COMMANDS.items() if row.access is Access.READER}
    assert readers == {
        *("status", "plan", "explain", "peers.list", "blocked", "connections", "learn"),
        *("events", "bans.list", "guard", "snapshot", "adopted.list", "api.list"),
    }
