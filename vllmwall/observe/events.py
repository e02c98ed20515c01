"""Kernel events as hints: listeners, started programs, new cgroups.

A private tracefs instance reports every network namespace, names the thread, and costs 15 ns an
event. Events are hints only: they can be lost, and everything in them is re-read before it is
believed. They are read in the kernel's binary form, where no name that a user chooses can pass
for an event. Sources: Documentation/trace/events.rst, ftrace.rst; the events
sock/inet_sock_set_state (Linux 4.16), syscalls/sys_enter_listen, sched/sched_process_exec,
cgroup/cgroup_mkdir (Linux 4.13).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from vllmwall.linux.trace_ring import EventFormat, Record, UnknownFormatError, kind, text
from vllmwall.linux.tracefs import Instance
from vllmwall.model import Address
from vllmwall.observe.visibility import in_first_pid_namespace

_LISTEN_STATE, _CLOSE_STATE = 10, 7  # TCP_LISTEN and TCP_CLOSE, net/tcp_states.h
_TCP, _IPV6 = 6, 10  # IPPROTO_TCP and AF_INET6
_PROGRAMS = ("python", "pypy", "vllm", "torchrun", "ray", "gcs_server", "sglang", "lmdeploy")
_TASK = "common_pid"
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
    "sched/sched_process_exec": " || ".join(f'filename ~ "*{name}*"' for name in _PROGRAMS),
    "cgroup/cgroup_mkdir": "root == 0",  # the v2 hierarchy
}
_FIELDS = {
    "sock/inet_sock_set_state": (_TASK, "newstate", "sport", "family", "saddr", "saddr_v6"),
    "syscalls/sys_enter_listen": (_TASK, "backlog"),
    "sched/sched_process_exec": (_TASK,),
    "cgroup/cgroup_mkdir": ("id", "path"),
}
_OPTIONAL = frozenset({"cgroup/cgroup_mkdir"})


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
    id: int


@dataclass(frozen=True)
class LostEvents:
    """The kernel had to drop events: only a full pass finds what they were about."""

    count: int


Event = ListenEvent | CloseEvent | ExecEvent | CgroupEvent | LostEvents


_Decoder = Callable[[_Fields, bytes, Record], Event | None]


class EventsUnavailableError(Exception):
    """No events are available here. The text is the reason, for status and log."""


class TraceEvents:
    """The events of a private tracefs instance ``name``, or ``name.2`` where a daemon has that.

    Raises EventsUnavailableError when tracefs is not mounted, locked down, lacks the events or has
    a layout that is not known.
    """

    def __init__(self, name: str) -> None:
        self._backlogs: dict[int, int] = {}
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
        decoded = (self._decode(page, record) for record, page in found)
        return events + [event for event in decoded if event]

    def lost(self) -> int:
        """How many events the kernel had to drop since the instance was made."""
        return self._instance.lost()

    def _configure(self) -> None:
        write = self._instance.write
        write("tracing_on", "0")
        with suppress(OSError):  # only for what is measured
            write("trace_clock", "mono")
            self._has_times = True
        with suppress(OSError):  # only a saving
            write("options/record-cmd", "0")
        decode = self._state_event, self._note_backlog, self._exec_event, _cgroup_event
        for (event, names), decoder in zip(_FIELDS.items(), decode, strict=True):
            try:
                layout = EventFormat(self._instance.text(f"events/{event}/format"), names)
                self._enable(event, _FILTERS[event])
            except OSError:
                if event not in _OPTIONAL:
                    raise
            else:
                self._decoders[layout.id] = layout, decoder
        write("tracing_on", "1")

    def _enable(self, event: str, condition: str) -> None:
        if condition:
            self._instance.write(f"events/{event}/filter", condition)
        self._instance.write(f"events/{event}/enable", "1")

    def _decode(self, page: bytes, record: Record) -> Event | None:
        layout, decoder = self._decoders.get(kind(page, record), (None, None))
        fields = layout.read(page, record) if layout else None
        return decoder(fields, page, record) if decoder and fields is not None else None

    def _note_backlog(self, fields: _Fields, _page: bytes, _record: Record) -> None:
        task, backlog = fields
        if len(self._backlogs) > _BACKLOGS_KEPT:  # listen() on unix sockets has no answer
            self._backlogs.clear()
        raw = backlog & 0xFFFFFFFF
        self._backlogs[task] = raw - (1 << 32) if raw >> 31 else raw

    def _state_event(self, fields: _Fields, _page: bytes, record: Record) -> Event:
        task, state, port, family, ipv4, ipv6 = fields
        if state != _LISTEN_STATE:
            return CloseEvent(self._named(task), port)
        address = IPv6Address(ipv6) if family == _IPV6 else IPv4Address(ipv4)
        at = record.time / 1e9 if self._has_times else None
        return ListenEvent(self._named(task), port, self._backlogs.pop(task, None), address, at)

    def _exec_event(self, fields: _Fields, _page: bytes, _record: Record) -> Event:
        return ExecEvent(self._named(fields[0]))

    def _named(self, task: int) -> int:
        return task if self._names_as_we_do else UNNAMED


def _cgroup_event(fields: _Fields, page: bytes, record: Record) -> Event:
    number, place = fields
    return CgroupEvent(text(page, record, place).decode(errors="replace"), number)


def _unavailable(error: OSError | UnknownFormatError) -> EventsUnavailableError:
    if isinstance(error, OSError):
        return EventsUnavailableError(f"tracefs: {error.strerror} ({error.filename})")
    return EventsUnavailableError(f"tracefs: this kernel has another format of {error}")
