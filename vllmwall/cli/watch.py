"""`vllmwall watch`: the node, live, until q."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from vllmwall.api.server import ControlError, request
from vllmwall.cli.exit_codes import exit_of
from vllmwall.cli.follow import until_enough
from vllmwall.cli.terminal import ask, console, fail, print_json, printable

if TYPE_CHECKING:
    from vllmwall.api.events_shapes import EventsJson
    from vllmwall.api.shapes import StatusJson
    from vllmwall.api.watch_shapes import WatchJson

_EVENTS = 50
_PLAIN_HEIGHT = 60  # where no terminal says how high it is
_PATIENCE = 5.0
_ENDING = frozenset(b"qQ\x03\x04")  # q, and what Ctrl-C and Ctrl-D send where no signal does


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@click.option("--json", "as_json", is_flag=True, help="One look, for machines.")
def watch(interval: float, as_json: bool) -> None:
    """Show workloads, listeners, refused packets a second and events, live. Ends with q.

    Where standard output is no terminal, one plain look is printed.
    """
    if as_json or not sys.stdout.isatty():
        status = cast("StatusJson", ask("status"))
        events = cast("EventsJson", ask("events", {"most": _EVENTS}))
        _print_once(_look(status, events, None), as_json=as_json)
        return
    with until_enough():
        _live(interval)


def _print_once(look: WatchJson, *, as_json: bool) -> None:
    if as_json:
        print_json(look)
        return
    from vllmwall.cli.watch_screen import picture

    out = console()
    out.print(picture(look, out.width, _PLAIN_HEIGHT))


def _live(interval: float) -> None:
    """A first look that fails ends the command in words; a later one is shown, and tried again."""
    from rich.live import Live

    from vllmwall.cli.watch_screen import picture

    socket_path = Path(click.get_current_context().find_root().params["socket"])
    try:
        look = _taken(socket_path, None)
    except ControlError as error:
        fail(str(error), exit_of(error))
    out, trouble, due = console(), "", time.monotonic() + interval
    foot = f"q ends · every {interval:g} s"
    first = picture(look, *out.size, foot=foot)
    with ExitStack() as held:
        woken = held.enter_context(_woken())
        held.enter_context(_keys_at_once())
        live = held.enter_context(
            Live(first, console=out, screen=True, auto_refresh=False, vertical_overflow="crop")
        )
        while True:
            size = out.size
            live.update(picture(look, size.width, size.height, trouble, foot), refresh=True)
            if _is_ended(woken, due - time.monotonic()):
                return
            if time.monotonic() < due:  # another size: the same picture anew
                continue
            due = time.monotonic() + interval
            try:
                look, trouble = _taken(socket_path, look), ""
            except ControlError as error:
                since = time.strftime("%H:%M:%S", time.localtime(look["time"]))
                trouble = f"{printable(str(error))}; trying again. As of {since}:"


def _taken(socket_path: Path, before: WatchJson | None) -> WatchJson:
    """Look now. Raises ControlError."""
    status = printable(request("status", None, socket_path, _PATIENCE))
    events = printable(request("events", {"most": _EVENTS}, socket_path, _PATIENCE))
    return _look(cast("StatusJson", status), cast("EventsJson", events), before)


def _look(status: StatusJson, events: EventsJson, before: WatchJson | None) -> WatchJson:
    return {
        "version": 1,
        "time": status["time"],
        "refused_per_second": None if before is None else _rate(before["status"], status),
        "status": status,
        "events": events["events"],
    }


def _rate(before: StatusJson, now: StatusJson) -> float:
    """Refused packets a second in the namespaces that both looks know; a counter that began anew
    counts from zero."""
    known = {one["inode"]: one["refused_packets"] or 0 for one in before["namespaces"]}
    seconds = max(0.001, now["time"] - before["time"])
    grown = 0
    for one in now["namespaces"]:
        packets = one["refused_packets"] or 0
        earlier = known.get(one["inode"], packets)
        grown += packets - earlier if packets >= earlier else packets
    return grown / seconds


@contextmanager
def _woken() -> Iterator[int]:
    """A descriptor that becomes readable at every signal: another size, or the end."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    numbers = (signal.SIGWINCH, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    woken_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(woken_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


@contextmanager
def _keys_at_once() -> Iterator[None]:
    """Keys come as they are pressed and are not shown; the terminal is as before in the end."""
    if not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor, termios.TCSADRAIN)  # what was pressed already counts
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _is_ended(woken: int, seconds: float) -> bool:
    """Wait for a key, a signal or the time; whether somebody wants to end it."""
    keys = [sys.stdin.fileno()] if sys.stdin.isatty() else []
    ready, _, _ = select.select([woken, *keys], [], [], max(0.0, seconds))
    if woken in ready:
        with suppress(BlockingIOError):
            if set(os.read(woken, 4096)) - {signal.SIGWINCH}:
                return True
    if keys and keys[0] in ready:
        try:
            pressed = os.read(keys[0], 4096)
        except OSError:  # the terminal is gone
            return True
        return not pressed or not _ENDING.isdisjoint(pressed)
    return False
