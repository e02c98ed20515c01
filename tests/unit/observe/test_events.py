"""Events from a real private tracefs instance, and lines that lie."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from vllmwall.observe import events
from vllmwall.observe.events import (
    CloseEvent,
    Event,
    EventsUnavailableError,
    ExecEvent,
    ListenEvent,
    LostEvents,
    TraceEvents,
)

NAME = f"vwtest-{os.getpid()}"


@pytest.fixture
def trace() -> Iterator[TraceEvents]:
    """A private instance, or a skip where the kernel gives none."""
    try:
        found = TraceEvents(NAME)
    except EventsUnavailableError as error:
        pytest.skip(f"no tracefs here: {error}")
    yield found
    with suppress(OSError):
        found.close()


def wait_for(trace: TraceEvents, wanted: Callable[[Event], bool]) -> Event:
    """The first event that is wanted; fails after 5 seconds."""
    deadline = time.monotonic() + 5
    while (left := deadline - time.monotonic()) > 0:
        select.select([trace.fileno()], [], [], left)
        for event in trace.read():
            if wanted(event):
                return event
    raise AssertionError("the event did not come")


def test_listen_and_close_are_told_with_thread_port_and_backlog(trace: TraceEvents) -> None:
    """The raw backlog tells uvicorn from ZMQ even when the kernel has cut it."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        listening.listen(16384)
        event = wait_for(trace, lambda one: isinstance(one, ListenEvent) and one.port == port)
        assert ListenEvent(os.getpid(), port, 16384) == event
    wait_for(trace, lambda one: one == CloseEvent(os.getpid(), port))


def test_a_started_interpreter_is_told(trace: TraceEvents) -> None:
    """Command line and environment must be read before the process renames itself."""
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        wait_for(trace, lambda one: one == ExecEvent(child.pid))


def test_a_stale_instance_is_taken_over_and_taken_away(trace: TraceEvents) -> None:
    """A killed daemon leaves its instance behind; the next one uses it."""
    os.close(trace.fileno())
    TraceEvents(NAME).close()
    assert not any((mount / "instances" / NAME).exists() for mount in events.TRACEFS_MOUNTS)


def test_the_instance_of_a_living_daemon_is_left_alone(trace: TraceEvents) -> None:
    """A second daemon must not make the first one blind."""
    with pytest.raises(EventsUnavailableError, match="busy"):
        TraceEvents(NAME)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        wait_for(trace, lambda one: isinstance(one, ListenEvent))


def test_no_tracefs_is_said_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The daemon then polls, and status says why."""
    monkeypatch.setattr(events, "TRACEFS_MOUNTS", (tmp_path / "gone",))
    with pytest.raises(EventsUnavailableError, match=f"{tmp_path}/gone: No such file"):
        TraceEvents(NAME)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "  x-1 [000] d..1. 1.0: inet_sock_set_state: a-77 [001] ..... 2.0: "
            "inet_sock_set_state: family=AF_INET protocol=IPPROTO_TCP sport=80 dport=0 "
            "oldstate=TCP_CLOSE newstate=TCP_LISTEN",
            ListenEvent(77, 80, None),
        ),
        ("CPU:1 [LOST 12 EVENTS]", LostEvents(12)),
        ("garbage", None),
        (
            "a-5 [000] ..... 1.0: inet_sock_set_state: family=AF_INET protocol=IPPROTO_SCTP "
            "sport=80 newstate=TCP_LISTEN",
            None,
        ),
    ],
)
def test_a_line_is_read_by_its_last_fixed_part(
    trace: TraceEvents, line: str, expected: Event | None
) -> None:
    """A process can call itself anything; its name must not pass for an event."""
    assert expected == trace._parse(line)


def test_listens_without_an_answer_do_not_pile_up(trace: TraceEvents) -> None:
    """listen() on unix sockets never has a second half; memory stays bounded."""
    for task in range(5000):
        trace._parse(f"a-{task} [000] ..... 1.0: sys_listen(fd: 3, backlog: 80)")
    assert len(trace._backlogs) <= 1025
