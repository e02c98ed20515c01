"""systemd scopes for jobs, made by the call that `systemd-run --scope` makes.

libsystemd (sd-bus) is used and not that program, which would have to start this one a second time:
the job may run only after the daemon has answered. Managers are asked over their private sockets,
which need no bus daemon; an ordinary user asks the system manager over the bus, and polkit decides.
"""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import suppress
from pathlib import Path

from vllmwall.cli.jobs.errors import NotGuardedError

SLICE = "vllmwall.slice"

_BOOTED = Path("/run/systemd/system")  # sd_booted(3)
_SYSTEM_SOCKET = Path("/run/systemd/private")
_CGROUP = Path("/proc/self/cgroup")
_PATIENCE = 10.0  # seconds; systemd moves a process milliseconds after its answer
_LOOK_EVERY = 0.002


class _BusError(ctypes.Structure):
    """sd_bus_error, systemd/sd-bus.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("message", ctypes.c_char_p),
        ("_need_free", ctypes.c_int),
    )


def is_running() -> bool:
    """Whether systemd manages this machine, or this container."""
    return _BOOTED.is_dir()


def enter(scope: str) -> None:
    """Have systemd put this process into a new scope below the slice. Raises NotGuardedError.

    Root asks the system manager; other users ask their own and then, if polkit allows it, that one.
    """
    refusals = []
    for manager, socket in _managers():
        try:
            _start(scope, socket)
        except OSError as error:
            refusals.append(f"{manager} says: {str(error.strerror or error).rstrip('.')}")
        else:
            _wait_until_in(scope)
            return
    raise NotGuardedError(f"no scope for the job: {'; '.join(refusals)}", _hint())


def _managers() -> list[tuple[str, Path | None]]:
    """The managers to ask, each with its private socket; None: over the system bus."""
    if os.geteuid() == 0:
        return [("systemd", _SYSTEM_SOCKET if _SYSTEM_SOCKET.exists() else None)]
    own = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}")
    private = own / "systemd" / "private"
    mine = [("your own systemd", private)] if private.exists() else []
    return [*mine, ("systemd", None)]


def _hint() -> str:
    if os.geteuid() == 0:
        return ""
    return f"Start the job as root, or run as root: loginctl enable-linger {os.geteuid()}"


def _start(scope: str, socket: Path | None) -> None:
    """StartTransientUnit (org.freedesktop.systemd1(5)) with this process in it. Raises OSError."""
    library = ctypes.CDLL("libsystemd.so.0")
    bus = _connect(library, socket)
    refusal = _BusError()
    wanted: list[str | int] = [scope, "fail", 4]  # fail: never replace another job
    wanted += ["PIDs", "au", 1, os.getpid(), "Slice", "s", SLICE]
    wanted += ["Description", "s", "a job guarded by vllmwall"]
    wanted += ["CollectMode", "s", "inactive-or-failed"]  # the name is free again after any end
    wanted += [0]  # no other units with it
    try:
        status = library.sd_bus_call_method(
            bus,
            b"org.freedesktop.systemd1",
            b"/org/freedesktop/systemd1",
            b"org.freedesktop.systemd1.Manager",
            b"StartTransientUnit",
            ctypes.byref(refusal),
            None,
            b"ssa(sv)a(sa(sv))",
            *(one.encode() if isinstance(one, str) else ctypes.c_uint32(one) for one in wanted),
        )
        if status < 0:
            reason = (refusal.message or b"").decode(errors="replace")
            raise OSError(-status, reason or os.strerror(-status))
    finally:
        library.sd_bus_error_free(ctypes.byref(refusal))
        library.sd_bus_flush_close_unref(bus)


def _connect(library: ctypes.CDLL, socket: Path | None) -> ctypes.c_void_p:
    """A connection to a manager. Raises OSError."""
    library.sd_bus_flush_close_unref.argtypes = [ctypes.c_void_p]
    bus = ctypes.c_void_p()
    if socket is None:
        steps = [library.sd_bus_open_system(ctypes.byref(bus))]
    else:
        address = b"unix:path=" + os.fsencode(socket)
        steps = [library.sd_bus_new(ctypes.byref(bus))]
        steps += [library.sd_bus_set_address(bus, address), library.sd_bus_start(bus)]
    for status in steps:
        if status < 0:
            raise OSError(-status, f"not reached: {os.strerror(-status)}")
    return bus


def _wait_until_in(scope: str) -> None:
    """Wait until the kernel shows the move: systemd answers before it moves a process."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with suppress(OSError):
            if any(line.endswith(f"/{scope}") for line in _CGROUP.read_text().splitlines()):
                return
        time.sleep(_LOOK_EVERY)
    raise NotGuardedError(
        f"systemd accepted the job and did not move it within {_PATIENCE:g} s",
        f"See: journalctl -u {scope}",
    )
