"""Kernel events as hints: listeners, started programs, new cgroups.

A private tracefs instance reports every network namespace, names the thread, and costs 15 ns an
event. Events are hints only: they can be lost, and everything in them is re-read before it is
believed. They are read in the kernel's binary form, where no name that a user chooses can pass
for an event. Sources: Documentation/trace/events.rst, ftrace.rst; the events
sock/inet_sock_set_state (Linux 4.16), syscalls/sys_enter_listen, sched/sched_process_exec,
cgroup/cgroup_mkdir (Linux 4.13).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from vllmwall.linux.trace_ring import EventFormat, Record, UnknownFormatError, beginning
from vllmwall.linux.tracefs import Instance
from vllmwall.model import Address
from vllmwall.observe.visibility import in_first_pid_namespace

_LISTEN_STATE, _CLOSE_STATE = 10, 7  # TCP_LISTEN and TCP_CLOSE, net/tcp_states.h
_TCP, _IPV6 = 6, 10  # IPPROTO_TCP and AF_INET6
_PROGRAMS = ("python", "pypy", "vllm", "torchrun", "ray", "gcs_server", "sglang", "lmdeploy")
_BACKLOGS_KEPT = 1024

UNNAMED = 0
"""The pid of events outside the first PID namespace (LXC, systemd-nspawn, a container without
hostPID): the kernel's pids are those of the first one, so they mean nothing here."""

_Fields = tuple[Any, ...]  # of an event, in the order of _FIELDS
_FILTERS = {
    # An accepted connection, a clone of the listener, leaves LISTEN too (tcp_v4_syn_recv_sock).
    "sock/inet_sock_set_state": f"protocol == {_TCP} && (newstate == {_LISTEN_STATE} || "
    f"(oldstate == {_LISTEN_STATE} && newstate == {_CLOSE_STATE}))",
    "syscalls/sys_enter_listen": "",
    "syscalls/sys_enter_bind": "addrlen >= 16",  # sockaddr_in; those of netlink are shorter
    "syscalls/sys_exit_bind": "ret == 0",
    "sched/sched_process_exec": " || ".join(f'filename ~ "*{name}*"' for name in _PROGRAMS),
    "cgroup/cgroup_mkdir": "root == 0",  # the v2 hierarchy
}
_FIELDS = {
    "sock/inet_sock_set_state": ("newstate", "sport", "family", "saddr", "saddr_v6"),
    "syscalls/sys_enter_listen": ("backlog",),
    "syscalls/sys_enter_bind": (),
    "syscalls/sys_exit_bind": (),
    "sched/sched_process_exec": (),
    "cgroup/cgroup_mkdir": ("id", "path"),
}
_OPTIONAL = frozenset({"cgroup/cgroup_mkdir"})
_EVENTS_OF_ONE = 256  # of a thread at a time; the kernel leaves out what it does for a while then
_LEFT_OUT_SECONDS = 5.0
_LEFT_OUT_MOST = 64  # a filter has a page at most


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
class BindEvent:
    """Thread ``tid`` (or `UNNAMED`) bound a socket to an address, of UDP maybe."""

    tid: int


LOOK_AT_UDP = BindEvent(os.getpid())
"""An event of nobody: the UDP sockets of workloads are read again."""


@dataclass(frozen=True)
class ExecEvent:
    """Process ``pid`` (or `UNNAMED`) started a program whose name a launcher can have."""

    pid: int


@dataclass(frozen=True)
class CgroupEvent:
    """A cgroup was made in the v2 hierarchy; no process is in it yet."""

    path: str
    id: int


@dataclass(frozen=True)
class LostEvents:
    """The kernel had to drop events: only a full pass finds what they were about."""

    count: int


Event = ListenEvent | CloseEvent | BindEvent | ExecEvent | CgroupEvent | LostEvents


_Decoder = Callable[[int, int, _Fields], Event | None]  # of thread, time and fields


class EventsUnavailableError(Exception):
    """No events are available here. The text is the reason, for status and log."""


class TraceEvents:
    """The events of a private tracefs instance ``name``, or ``name.2`` where a daemon has that.

    Raises EventsUnavailableError when tracefs is not mounted, locked down, lacks the events or has
    a layout that is not known.
    """

    def __init__(self, name: str) -> None:
        self._backlogs: dict[int, int] = {}
        self._binding: set[int] = set()
        self._not_read = 0
        self._left_out: dict[int, float] = {}  # threads, until when
        self._decoders: dict[int, tuple[EventFormat, _Decoder]] = {}
        self._has_times = False
        self._names_as_we_do = in_first_pid_namespace()
        try:
            self._instance = Instance(name)
        except (OSError, UnknownFormatError) as error:
            raise _unavailable(error) from error
        try:
            self._configure()
        except (OSError, UnknownFormatError) as error:
            self.close()
            raise _unavailable(error) from error

    @property
    def name(self) -> str:
        """The name of the instance."""
        return self._instance.folder.name

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._instance.fileno()

    def close(self) -> None:
        """Remove the instance."""
        self._instance.close()

    def read(self) -> list[Event]:
        """The events since the last call, or the oldest of them. Does not wait."""
        pages = self._instance.pages
        events: list[Event] = []
        found: list[tuple[Record, bytes]] = []
        for page in self._instance.read():
            if lost := pages.lost(page):
                events.append(LostEvents(lost))
            found += [(record, page) for record in pages.records(page)]
        found.sort()  # by time: a thread that changes its CPU leaves two halves in two buffers
        shares = Counter[int]()
        for record, page in found:
            number, task = beginning(page, record)
            shares[task] += 1
            if shares[task] <= _EVENTS_OF_ONE:
                event = self._decode(number, task, page, record)
                events += [event] if event else []
        loud = {one: seen - _EVENTS_OF_ONE for one, seen in shares.items() if seen > _EVENTS_OF_ONE}
        self._not_read += sum(loud.values())
        if changed := self._leave_out(loud.keys()):
            events.append(LostEvents(changed))
        return events

    def _leave_out(self, loud: Set[int]) -> int:
        """Have the kernel leave these threads out for a while, so that a storm of events does not
        cover what others do; for how many threads that begins or ends now."""
        now = time.monotonic()
        over = {one for one, until in self._left_out.items() if until <= now}
        if not loud and not over:
            return 0
        kept = {one: until for one, until in self._left_out.items() if one not in over}
        kept |= dict.fromkeys(loud, now + _LEFT_OUT_SECONDS)
        self._left_out = dict(list(kept.items())[-_LEFT_OUT_MOST:])
        with suppress(OSError):  # a storm is then read as far as it can be
            for event in _FILTERS.keys() - _OPTIONAL:
                self._filter(event)
        return len(loud | over)

    def _filter(self, event: str) -> None:
        condition = [f"({_FILTERS[event]})"] if _FILTERS[event] else []
        condition += [f"common_pid != {task}" for task in self._left_out]
        self._instance.write(f"events/{event}/filter", " && ".join(condition) or "0")

    def lost(self) -> int:
        """How many events were dropped since the instance was made, by the kernel or in a storm."""
        return self._instance.lost() + self._not_read

    def _configure(self) -> None:
        write = self._instance.write
        write("tracing_on", "0")
        with suppress(OSError):  # only for what is measured
            write("trace_clock", "mono")
            self._has_times = True
        with suppress(OSError):  # only a saving
            write("options/record-cmd", "0")
        decoders: tuple[_Decoder, ...] = (
            self._state_event,
            self._note_backlog,
            self._note_bind,
            self._bind_event,
            self._exec_event,
            _cgroup_event,
        )
        for (event, names), decoder in zip(_FIELDS.items(), decoders, strict=True):
            try:
                layout = EventFormat(self._instance.text(f"events/{event}/format"), names)
                self._filter(event)
                self._instance.write(f"events/{event}/enable", "1")
            except OSError:
                if event not in _OPTIONAL:
                    raise
            else:
                self._decoders[layout.id] = layout, decoder
        write("tracing_on", "1")

    def _decode(self, number: int, task: int, page: bytes, record: Record) -> Event | None:
        layout, decoder = self._decoders.get(number, (None, None))
        fields = layout.read(page, record) if layout else None
        return decoder(task, record.time, fields) if decoder and fields is not None else None

    def _note_backlog(self, task: int, _time: int, fields: _Fields) -> None:
        if len(self._backlogs) > _BACKLOGS_KEPT:  # listen() on unix sockets has no answer
            self._backlogs.clear()
        raw = fields[0] & 0xFFFFFFFF
        self._backlogs[task] = raw - (1 << 32) if raw >> 31 else raw

    def _state_event(self, task: int, at: int, fields: _Fields) -> Event:
        state, port, family, ipv4, ipv6 = fields
        if state != _LISTEN_STATE:
            return CloseEvent(self._named(task), port)
        address = IPv6Address(ipv6) if family == _IPV6 else IPv4Address(ipv4)
        backlog, when = self._backlogs.pop(task, None), at / 1e9 if self._has_times else None
        return ListenEvent(self._named(task), port, backlog, address, when)

    def _note_bind(self, task: int, _time: int, _fields: _Fields) -> None:
        if len(self._binding) > _BACKLOGS_KEPT:  # bind() that fails has no answer
            self._binding.clear()
        self._binding.add(task)

    def _bind_event(self, task: int, _time: int, _fields: _Fields) -> Event | None:
        if task not in self._binding:
            return None  # of netlink
        self._binding.remove(task)
        return BindEvent(self._named(task))

    def _exec_event(self, task: int, _time: int, _fields: _Fields) -> Event:
        return ExecEvent(self._named(task))

    def _named(self, task: int) -> int:
        return task if self._names_as_we_do else UNNAMED


def _cgroup_event(_task: int, _time: int, fields: _Fields) -> Event:
    number, path = fields
    return CgroupEvent(path.decode(errors="replace"), number)


def _unavailable(error: OSError | UnknownFormatError) -> EventsUnavailableError:
    if isinstance(error, OSError):
        return EventsUnavailableError(f"tracefs: {error.strerror} ({error.filename})")
    return EventsUnavailableError(f"tracefs: this kernel has another format of {error}")
