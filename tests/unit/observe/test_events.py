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
from ipaddress import ip_address
from pathlib import Path

import pytest

from vllmwall.linux.cgroups import mount_point
from vllmwall.observe import events
from vllmwall.observe.events import (
    CgroupEvent,
    CloseEvent,
    Event,
    EventsUnavailableError,
    ExecEvent,
    ListenEvent,
    LostEvents,
    TraceEvents,
)

NAME = f"vwtest-{os.getpid()}"
MOUNTS = events.TRACEFS_MOUNTS
FORGED = "x-77 [001] ..... 2.0: inet_sock_set_state: family=AF_INET protocol=IPPROTO_TCP sport=80"


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
        assert ListenEvent(os.getpid(), port, 16384, ip_address("127.0.0.1")) == event
    wait_for(trace, lambda one: one == CloseEvent(os.getpid(), port))


def test_a_started_interpreter_is_told(trace: TraceEvents) -> None:
    """Command line and environment must be read before the process renames itself."""
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        wait_for(trace, lambda one: one == ExecEvent(child.pid))


def test_a_stale_instance_is_taken_over_and_taken_away(trace: TraceEvents) -> None:
    """A killed daemon leaves its instance behind; the next one uses it."""
    os.close(trace.fileno())
    TraceEvents(NAME).close()
    assert not any((mount / "instances" / NAME).exists() for mount in MOUNTS)


def test_the_instance_of_a_living_daemon_is_left_alone(trace: TraceEvents) -> None:
    """A second daemon, of a container for one, gets its own; neither makes the other blind."""
    second = TraceEvents(NAME)
    try:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            for one in (trace, second):
                wait_for(one, lambda event: isinstance(event, ListenEvent))
    finally:
        second.close()
    assert not any((mount / "instances" / f"{NAME}.2").exists() for mount in MOUNTS)


def test_too_many_daemons_are_told(trace: TraceEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon then polls, and status says why."""
    monkeypatch.setattr(events, "_DAEMONS", 1)
    with pytest.raises(EventsUnavailableError, match="busy"):
        TraceEvents(NAME)


def test_no_tracefs_is_said_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The daemon then polls, and status says why."""
    monkeypatch.setattr(events, "TRACEFS_MOUNTS", (tmp_path / "gone",))
    with pytest.raises(EventsUnavailableError, match=f"{tmp_path}/gone: No such file"):
        TraceEvents(NAME)


def test_a_cgroup_is_told_before_anything_is_in_it(trace: TraceEvents) -> None:
    """The number and the depth are those that the kernel will match sockets by."""
    mount = mount_point()
    if mount is None:
        pytest.skip("no cgroup v2 hierarchy is mounted")
    folder = mount / f"vw test-{os.getpid()}.service"
    folder.mkdir()
    try:
        path = f"/{folder.name}"  # other tests make cgroups, too
        event = wait_for(trace, lambda one: isinstance(one, CgroupEvent) and one.path == path)
        assert CgroupEvent(f"/{folder.name}", 1, folder.stat().st_ino) == event
    finally:
        folder.rmdir()


def test_dropped_events_are_counted(trace: TraceEvents) -> None:
    """After lost events everything is read again."""
    assert trace.lost() == 0
    trace._write("buffer_size_kb", "4")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        for _ in range(2000):
            listening.listen(1)
    assert trace.lost() > 0
    wait_for(trace, lambda one: isinstance(one, LostEvents))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "   -1 [0] x: y: -77      [001] ..... 2.0: "
            "inet_sock_set_state: family=AF_INET protocol=IPPROTO_TCP sport=80 dport=0 "
            "saddr=10.0.0.1 daddr=0.0.0.0 saddrv6=::ffff:10.0.0.1 daddrv6=:: oldstate=TCP_CLOSE "
            "newstate=TCP_LISTEN",
            ListenEvent(77, 80, None, ip_address("10.0.0.1")),
        ),
        (
            "              sh-7       [001] ..... 2.0: sched_process_exec: "
            f"filename=/tmp/{FORGED} pid=7 old_pid=7",
            ExecEvent(7),
        ),
        (
            "           mkdir-7       [001] d..1. 2.0: cgroup_mkdir: "
            f"root=0 id=11501 level=2 path=/a b/{FORGED}",
            CgroupEvent(f"/a b/{FORGED}", 2, 11501),
        ),
        (
            "           mkdir-7       [001] d..1. 2.0: cgroup_mkdir: root=9 id=8 level=1 path=/a",
            None,
        ),
        ("CPU:1 [LOST 12 EVENTS]", LostEvents(12)),
        ("garbage", None),
        (
            "               a-5       [000] ..... 1.0: inet_sock_set_state: family=AF_INET "
            "protocol=IPPROTO_SCTP sport=80 newstate=TCP_LISTEN",
            None,
        ),
    ],
)
def test_a_line_is_read_by_its_places(
    trace: TraceEvents, line: str, expected: Event | None
) -> None:
    """A process can call itself anything; its name must not pass for an event."""
    assert expected == trace._parse(line)


def test_listens_without_an_answer_do_not_pile_up(trace: TraceEvents) -> None:
    """listen() on unix sockets never has a second half; memory stays bounded."""
    for task in range(5000):
        trace._parse(f"a-{task} [000] ..... 1.0: sys_listen(fd: 3, backlog: 80)")
    assert len(trace._backlogs) <= 1025
