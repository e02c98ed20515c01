"""The process connector: exec events where tracefs is closed."""

from __future__ import annotations

import select
import subprocess
import time

import pytest

from vllmwall.observe.events import EventsUnavailableError, ExecEvent
from vllmwall.observe.proc_connector import ConnectorEvents


def test_a_started_program_is_told() -> None:
    """Also without tracefs the command line is read before it is overwritten."""
    try:
        events = ConnectorEvents()
    except EventsUnavailableError as error:
        pytest.skip(str(error))
    try:
        with subprocess.Popen(["true"]) as child:
            deadline = time.monotonic() + 5
            seen: list[ExecEvent] = []
            while ExecEvent(child.pid) not in seen:
                assert time.monotonic() < deadline, "no event within 5 s"
                select.select([events.fileno()], [], [], 1)
                seen += events.read()
    finally:
        events.close()
