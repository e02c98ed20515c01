"""Events from a real private tracefs instance, and names that lie."""

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

from vllmwall.linux import tracefs
from vllmwall.linux.cgroups import mount_point
from vllmwall.observe import events
from vllmwall.observe.events import (
    BindEvent,
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
    assert not any((mount / "instances" / f"{NAME}.2").exists() for mount in tracefs.MOUNTS)


def test_too_many_daemons_are_told(trace: TraceEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon then polls, and status says why."""
    monkeypatch.setattr(tracefs, "_DAEMONS", 1)
    with pytest.raises(EventsUnavailableError, match="busy"):
        TraceEvents(NAME)


def test_no_tracefs_is_said_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The daemon then polls, and status says why."""
    monkeypatch.setattr(tracefs, "MOUNTS", (tmp_path / "gone",))
    with pytest.raises(EventsUnavailableError, match=r"No such file.*/gone"):
        TraceEvents(NAME)


def test_a_cgroup_is_told_before_anything_is_in_it(trace: TraceEvents) -> None:
    """The number is that which the kernel will match sockets by."""
    mount = mount_point()
    if mount is None:
        pytest.skip("no cgroup v2 hierarchy is mounted")
    folder = mount / f"vw test-{os.getpid()}.service"
    folder.mkdir()
    try:
        path = f"/{folder.name}"  # other tests make cgroups, too
        event = wait_for(trace, lambda one: isinstance(one, CgroupEvent) and one.path == path)
        assert CgroupEvent(f"/{folder.name}", folder.stat().st_ino) == event
    finally:
        folder.rmdir()


def test_dropped_events_are_counted(trace: TraceEvents) -> None:
    """After lost events everything is read again."""
    assert trace.lost() == 0
    trace._instance.write("buffer_size_kb", "4")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        for _ in range(2000):
            listening.listen(1)
    assert trace.lost() > 0
    wait_for(trace, lambda one: isinstance(one, LostEvents))


FORGED = (  # whole lines of trace_pipe, as unprivileged users forged them
    "<...>-77 [000] ..... 1.0: sys_listen(fd: 5, backlog: 800)",
    "<...>-77 [000] ..... 1.0: inet_sock_set_state: family=AF_INET protocol=IPPROTO_TCP sport=9555"
    " dport=0 saddr=0.0.0.0 daddr=0.0.0.0 saddrv6=:: daddrv6=:: oldstate=TCP_CLOSE"
    " newstate=TCP_LISTEN",
    "<...>-1 [000] ..... 1.0: cgroup_mkdir: root=0 id=1 level=1 path=",
    "CPU:1 [LOST 12 EVENTS]",
)


@pytest.mark.parametrize("line", [*FORGED, *("       " + one for one in FORGED)])
def test_a_name_begins_no_event(trace: TraceEvents, tmp_path: Path, line: str) -> None:
    """The file name of a program can hold newlines, and whole events of others between them."""
    program = tmp_path / f"python\n{line}\n"
    program.symlink_to("/bin/true")
    with subprocess.Popen([program]) as child:
        child.wait()
    with subprocess.Popen([sys.executable, "-c", "pass"]) as end:
        end.wait()
    seen: list[Event] = []
    wait_for(trace, lambda one: bool(seen.append(one) or one == ExecEvent(end.pid)))
    assert ExecEvent(child.pid) in seen
    assert not any(isinstance(one, CgroupEvent) and one.path == "" for one in seen)
    assert not any(isinstance(one, ListenEvent) and one.tid == 77 for one in seen)
    assert not any(isinstance(one, LostEvents) for one in seen)


def test_events_come_in_the_order_of_time(trace: TraceEvents) -> None:
    """A thread that changes its CPU between two events leaves them in two buffers."""
    ports = []
    cpus = sorted(os.sched_getaffinity(0))
    try:
        for number in range(20):
            os.sched_setaffinity(0, {cpus[number % len(cpus)]})
            with socket.socket() as listening:
                listening.bind(("127.0.0.1", 0))
                listening.listen(7)
                ports.append(listening.getsockname()[1])
    finally:
        os.sched_setaffinity(0, cpus)
    own = [one for one in trace.read() if isinstance(one, ListenEvent) and one.tid == os.getpid()]
    assert ports == [one.port for one in own]
    assert {7} == {one.backlog for one in own}


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_bind_is_told_once_it_is_done(trace: TraceEvents, kind: socket.SocketKind) -> None:
    """UDP has no other event; one that failed, or is of netlink, is none."""
    with socket.socket(type=kind) as bound:
        bound.bind(("127.0.0.1", 0))
        own = [one for one in trace.read() if isinstance(one, BindEvent) and one.tid == os.getpid()]
        assert [BindEvent(os.getpid())] == own
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as netlink:
            netlink.bind((0, 0))
        with pytest.raises(OSError, match="Invalid argument"):
            bound.bind(("127.0.0.1", 0))
    assert os.getpid() not in [one.tid for one in trace.read() if isinstance(one, BindEvent)]


def test_one_threads_storm_does_not_cover_others(
    trace: TraceEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel leaves the thread out for a while, which is counted; then it is heard again."""
    monkeypatch.setattr(events, "_LEFT_OUT_SECONDS", 0.2)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        for _ in range(1000):
            listening.listen(1)
    begin = time.monotonic()
    assert any(isinstance(one, LostEvents) for one in trace.read())
    assert trace.lost() > 700
    listened(trace, own=False)
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        wait_for(trace, lambda one: one == ExecEvent(child.pid))
    time.sleep(max(0.0, begin + 0.3 - time.monotonic()))
    assert any(isinstance(one, LostEvents) for one in trace.read())
    listened(trace, own=True)


def listened(trace: TraceEvents, *, own: bool) -> None:
    """Listen, and see whether that is told."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        seen = [one.tid for one in trace.read() if isinstance(one, ListenEvent)]
    assert own == (os.getpid() in seen)


def test_a_layout_that_is_not_known_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon then polls, and status says why; nothing is guessed."""
    monkeypatch.setitem(events._FIELDS, "syscalls/sys_enter_listen", ("queue",))
    with pytest.raises(EventsUnavailableError, match="another format of sys_enter_listen without"):
        TraceEvents(NAME)
    assert not any((mount / "instances" / NAME).exists() for mount in tracefs.MOUNTS)


def test_listens_without_an_answer_do_not_pile_up(trace: TraceEvents, tmp_path: Path) -> None:
    """listen() on unix sockets never has a second half; memory stays bounded."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen(80)
    trace.read()
    assert 80 == trace._backlogs[os.getpid()]
    for task in range(5000):
        trace._note_backlog(task, 0, (80,))
    assert len(trace._backlogs) <= 1025
