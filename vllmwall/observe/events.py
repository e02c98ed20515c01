"""Kernel events as hints: a listener came or went, a program was started.

A private tracefs instance tells of every network namespace at once, names the thread, and costs
15 ns an event. Events are hints only: they can be lost, and everything in them is re-read
before it is believed. Sources: Documentation/trace/events.rst, ftrace.rst; the events
sock/inet_sock_set_state (Linux 4.16), syscalls/sys_enter_listen, sched/sched_process_exec.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TRACEFS_MOUNTS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_LISTEN_STATE = 10  # TCP_LISTEN, net/tcp_states.h
_PROGRAMS = ("python", "pypy", "vllm", "torchrun", "ray", "gcs_server", "sglang", "lmdeploy")
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8  # linux/mount.h
_READ_BYTES = 1 << 16
_BACKLOGS_KEPT = 1024

_FILTERS = {
    "sock/inet_sock_set_state": f"newstate == {_LISTEN_STATE} || oldstate == {_LISTEN_STATE}",
    "syscalls/sys_enter_listen": "",
    "sched/sched_process_exec": " || ".join(f'filename ~ "*{name}*"' for name in _PROGRAMS),
}
# "python-4242 [001] d..1. 17.25: name: fields"; a comm is the user's own and can hold anything,
# so the last match of the fixed part counts.
_LINE = re.compile(r".*-(\d+)\s+\[\d+\]\s+\S+\s+[\d.]+: (\w+)[:(] ?(.*)")
_BACKLOG = re.compile(r"backlog: (?:0x)?([0-9a-f]+)")
_LOST = re.compile(r"LOST (\d+) EVENTS")


@dataclass(frozen=True)
class ListenEvent:
    """Thread ``tid`` put a socket into LISTEN on ``port``; ``backlog`` as it asked for it."""

    tid: int
    port: int
    backlog: int | None


@dataclass(frozen=True)
class CloseEvent:
    """A socket on ``port`` is no longer listening."""

    tid: int
    port: int


@dataclass(frozen=True)
class ExecEvent:
    """Process ``pid`` started a program whose name is one that a launcher can have."""

    pid: int


@dataclass(frozen=True)
class LostEvents:
    """The kernel had to drop events: only a full pass tells what they were."""

    count: int


Event = ListenEvent | CloseEvent | ExecEvent | LostEvents


class EventsUnavailableError(Exception):
    """Events cannot be had here; the text says why, for status and log."""


class TraceEvents:
    """The private tracefs instance ``name``; a stale one of the same name is taken over.

    Raises EventsUnavailableError when tracefs is not mounted, locked down or lacks the events.
    """

    def __init__(self, name: str) -> None:
        self._folder = _tracefs() / "instances" / name
        self._backlogs: dict[int, int] = {}
        self._rest = ""
        try:
            self._folder.mkdir(exist_ok=True)
            # Only one may read: while another daemon lives on this instance it is left alone.
            self._pipe = os.open(
                self._folder / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            )
        except OSError as error:
            raise _unavailable(error) from error
        try:
            self._configure()
        except OSError as error:
            self.close()
            raise _unavailable(error) from error

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._pipe

    def close(self) -> None:
        """Take the instance away."""
        os.close(self._pipe)
        self._remove()

    def read(self) -> Iterator[Event]:
        """What happened since the last call; does not wait."""
        try:
            while data := os.read(self._pipe, _READ_BYTES):
                lines = (self._rest + data.decode(errors="replace")).split("\n")
                self._rest = lines.pop()
                for line in lines:
                    if event := self._parse(line):
                        yield event
        except BlockingIOError:
            return

    def _configure(self) -> None:
        self._write("tracing_on", "0")
        self._write("trace", "")
        self._write("buffer_percent", "0")  # wake poll at the first event, not at half a buffer
        with suppress(OSError):  # only a saving
            self._write("options/record-cmd", "0")
        for event, condition in _FILTERS.items():
            if condition:
                self._write(f"events/{event}/filter", condition)
            self._write(f"events/{event}/enable", "1")
        self._write("tracing_on", "1")

    def _write(self, name: str, value: str) -> None:
        with (self._folder / name).open("w") as file:
            file.write(value)

    def _remove(self) -> None:
        with suppress(OSError):
            self._write("tracing_on", "0")
        with suppress(OSError):
            self._folder.rmdir()

    def _parse(self, line: str) -> Event | None:
        if lost := _LOST.search(line):
            return LostEvents(int(lost.group(1)))
        match = _LINE.match(line)
        if match is None:
            return None
        task, name, text = int(match.group(1)), match.group(2), match.group(3)
        if name == "sys_listen":
            self._note_backlog(task, text)
            return None
        if name == "sched_process_exec":
            return ExecEvent(task)
        if name == "inet_sock_set_state" and "IPPROTO_TCP" in text:
            return self._state_event(task, text)
        return None

    def _note_backlog(self, task: int, text: str) -> None:
        if match := _BACKLOG.search(text):
            if len(self._backlogs) > _BACKLOGS_KEPT:  # listen() on unix sockets has no answer
                self._backlogs.clear()
            raw = int(match.group(1), 16) & 0xFFFFFFFF
            self._backlogs[task] = raw - (1 << 32) if raw >> 31 else raw

    def _state_event(self, task: int, text: str) -> Event:
        fields = dict(part.split("=", 1) for part in text.split() if "=" in part)
        port = int(fields["sport"])
        if fields["newstate"] == "TCP_LISTEN":
            return ListenEvent(task, port, self._backlogs.pop(task, None))
        return CloseEvent(task, port)


def _unavailable(error: OSError) -> EventsUnavailableError:
    return EventsUnavailableError(f"tracefs: {error.strerror} ({error.filename})")


def _tracefs() -> Path:
    """Where tracefs is mounted; mounted by us where the kernel has it and nobody did."""
    for mount in TRACEFS_MOUNTS:
        if (mount / "instances").is_dir():
            return mount
    place = TRACEFS_MOUNTS[0]
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    if libc.mount(b"nodev", os.fsencode(place), b"tracefs", flags, None) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise EventsUnavailableError(f"tracefs cannot be mounted at {place}: {reason}")
    return place
