"""Kernel events as hints: listeners, started programs, new cgroups.

A private tracefs instance reports every network namespace, names the thread, and costs 15 ns an
event. Events are hints only: they can be lost, and everything in them is re-read
before it is believed. Sources: Documentation/trace/events.rst, ftrace.rst; the events
sock/inet_sock_set_state (Linux 4.16), syscalls/sys_enter_listen, sched/sched_process_exec,
cgroup/cgroup_mkdir (Linux 4.13).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

from vllmwall.model import Address
from vllmwall.observe.visibility import in_first_pid_namespace

TRACEFS_MOUNTS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_LISTEN_STATE, _CLOSE_STATE = 10, 7  # TCP_LISTEN and TCP_CLOSE, net/tcp_states.h
_PROGRAMS = ("python", "pypy", "vllm", "torchrun", "ray", "gcs_server", "sglang", "lmdeploy")
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8  # linux/mount.h
_READ_BYTES = 1 << 13  # what is asked for is allocated, and the kernel gives a page or two
_LITTLE = 1 << 11
_READS = 64  # at a time: a storm of events must not keep the loop from its other work
_BACKLOGS_KEPT = 1024
_DAEMONS = 9  # on one machine: its own, and those of its containers

UNNAMED = 0
"""The pid of events outside the first PID namespace (LXC, systemd-nspawn, a container without
hostPID): the kernel's pids are those of the first one, so they mean nothing here."""

_FILTERS = {
    # An accepted connection, a clone of the listener, leaves LISTEN too (tcp_v4_syn_recv_sock).
    "sock/inet_sock_set_state": f"newstate == {_LISTEN_STATE} || "
    f"(oldstate == {_LISTEN_STATE} && newstate == {_CLOSE_STATE})",
    "syscalls/sys_enter_listen": "",
    "sched/sched_process_exec": " || ".join(f'filename ~ "*{name}*"' for name in _PROGRAMS),
    "cgroup/cgroup_mkdir": "root == 0",  # the v2 hierarchy
}
_OPTIONAL = frozenset({"cgroup/cgroup_mkdir"})
# "          python-4242    [001] d..1. 17.25: name: fields". Names of threads, programs and
# cgroups belong to users and can hold anything, another event's text too. So the places count:
# the thread's name has the first 16 columns (trace_print_context, kernel/trace/trace_output.c).
_LINE = re.compile(r".{16}-(\d+) +\[\d+\] \S+ +([\d.]+): (\w+)[:(] ?(.*)")
_CGROUP = re.compile(r"root=0 id=(\d+) level=(\d+) path=(.*)")
_STATE = re.compile(
    r"family=(\w+) \S+ sport=(\d+) \S+ saddr=(\S+) \S+ saddrv6=(\S+) \S+ \S+ newstate=(\w+)"
)
_BACKLOG = re.compile(r"backlog: (?:0x)?([0-9a-f]+)")
_DROPPED = re.compile(r"^(?:overrun|dropped events): (\d+)$", re.MULTILINE)
_LOST = re.compile(r"LOST (\d+) EVENTS")


@dataclass(frozen=True)
class ListenEvent:
    """Thread ``tid`` put a socket into LISTEN on ``port``; ``backlog`` as it asked for it.

    ``tid`` is `UNNAMED` where the kernel's names are not ours.
    ``at`` is when, on the clock of `time.monotonic`; None: unknown.
    """

    tid: int
    port: int
    backlog: int | None
    address: Address | None = None
    at: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class CloseEvent:
    """A socket on ``port`` is no longer listening."""

    tid: int
    port: int


@dataclass(frozen=True)
class ExecEvent:
    """Process ``pid`` (or `UNNAMED`) started a program whose name a launcher can have."""

    pid: int


@dataclass(frozen=True)
class CgroupEvent:
    """A cgroup was made in the v2 hierarchy; no process is in it yet."""

    path: str
    level: int
    id: int


@dataclass(frozen=True)
class LostEvents:
    """The kernel had to drop events: only a full pass finds what they were about."""

    count: int


Event = ListenEvent | CloseEvent | ExecEvent | CgroupEvent | LostEvents


class EventsUnavailableError(Exception):
    """No events are available here. The text is the reason, for status and log."""


class TraceEvents:
    """The private tracefs instance ``name``; a stale one of the same name is taken over.

    Tracefs is the machine's: where a daemon of the host, or of another container, lives on an
    instance of that name, this one is called ``name.2``, and so on.
    Raises EventsUnavailableError when tracefs is not mounted, locked down or lacks the events.
    """

    def __init__(self, name: str) -> None:
        self._backlogs: dict[int, int] = {}
        self._rest = ""
        self._has_times = False
        self._names_as_we_do = in_first_pid_namespace()
        self._folder, self._pipe = _open_first(_tracefs() / "instances" / name)
        try:
            self._configure()
        except OSError as error:
            self.close()
            raise _unavailable(error) from error

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._pipe

    def close(self) -> None:
        """Remove the instance."""
        os.close(self._pipe)
        self._remove()

    def read(self) -> Iterator[Event]:
        """The events since the last call, or the oldest of them. Does not wait."""
        for _ in range(_READS):
            try:
                data = os.read(self._pipe, _READ_BYTES)
            except BlockingIOError:
                return
            lines = (self._rest + data.decode("latin-1")).split("\n")  # a column a byte
            self._rest = lines.pop()
            for line in lines:
                if event := self._parse(line):
                    yield event
            if len(data) < _LITTLE:  # a storm fills more; what comes now wakes the loop again
                return

    def lost(self) -> int:
        """How many events the kernel had to drop since the instance was made."""
        total = 0
        for stats in self._folder.glob("per_cpu/cpu*/stats"):
            with suppress(OSError):
                total += sum(map(int, _DROPPED.findall(stats.read_text())))
        return total

    def _configure(self) -> None:
        self._write("tracing_on", "0")
        self._write("trace", "")
        self._write("buffer_percent", "0")  # wake poll at the first event, not at half a buffer
        with suppress(OSError):  # only for what is measured
            self._write("trace_clock", "mono")
            self._has_times = True
        with suppress(OSError):  # only a saving
            self._write("options/record-cmd", "0")
        for event, condition in _FILTERS.items():
            try:
                self._enable(event, condition)
            except OSError:
                if event not in _OPTIONAL:
                    raise
        self._write("tracing_on", "1")

    def _enable(self, event: str, condition: str) -> None:
        if condition:
            self._write(f"events/{event}/filter", condition)
        self._write(f"events/{event}/enable", "1")

    def _write(self, name: str, value: str) -> None:
        with (self._folder / name).open("w") as file:
            file.write(value)

    def _remove(self) -> None:
        with suppress(OSError):
            self._write("tracing_on", "0")
        with suppress(OSError):
            self._folder.rmdir()

    def _parse(self, line: str) -> Event | None:
        if line.startswith("CPU:"):
            lost = _LOST.search(line)
            return LostEvents(int(lost.group(1))) if lost else None
        match = _LINE.match(line)
        if match is None:
            return None
        task, name, text = int(match.group(1)), match.group(3), match.group(4)
        if name == "sys_listen":
            self._note_backlog(task, text)
            return None
        if name == "sched_process_exec":
            return ExecEvent(self._named(task))
        if name == "inet_sock_set_state" and "IPPROTO_TCP" in text:
            return self._state_event(task, text, match.group(2))
        if name == "cgroup_mkdir":
            return _cgroup_event(text)
        return None

    def _note_backlog(self, task: int, text: str) -> None:
        if match := _BACKLOG.search(text):
            if len(self._backlogs) > _BACKLOGS_KEPT:  # listen() on unix sockets has no answer
                self._backlogs.clear()
            raw = int(match.group(1), 16) & 0xFFFFFFFF
            self._backlogs[task] = raw - (1 << 32) if raw >> 31 else raw

    def _state_event(self, task: int, text: str, when: str) -> Event | None:
        found = _STATE.search(text)
        if found is None:
            return None
        family, port, ipv4, ipv6, state = found.groups()
        if state != "TCP_LISTEN":
            return CloseEvent(self._named(task), int(port))
        address = _address(ipv6 if family == "AF_INET6" else ipv4)
        at = float(when) if self._has_times else None
        backlog = self._backlogs.pop(task, None)
        return ListenEvent(self._named(task), int(port), backlog, address, at)

    def _named(self, task: int) -> int:
        return task if self._names_as_we_do else UNNAMED


def _open_first(folder: Path) -> tuple[Path, int]:
    """An instance without a reader, and the pipe to read it."""
    names = [folder, *(folder.with_name(f"{folder.name}.{n}") for n in range(2, _DAEMONS + 1))]
    for one in names:
        try:
            one.mkdir(exist_ok=True)
            # Only one may read (EBUSY), so a living daemon's instance differs from a stale one.
            return one, os.open(one / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EBUSY or one is names[-1]:
                raise _unavailable(error) from error
    raise AssertionError("a loop over no names")


@lru_cache(maxsize=256)  # nearly always one of the two wildcards
def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _cgroup_event(text: str) -> CgroupEvent | None:
    match = _CGROUP.fullmatch(text)
    if match is None:
        return None
    number, level, path = match.groups()
    return CgroupEvent(path.encode("latin-1").decode(errors="replace"), int(level), int(number))


def _unavailable(error: OSError) -> EventsUnavailableError:
    return EventsUnavailableError(f"tracefs: {error.strerror} ({error.filename})")


def _tracefs() -> Path:
    """Where tracefs is mounted. Mounts it if the kernel has it and it is not mounted yet."""
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
