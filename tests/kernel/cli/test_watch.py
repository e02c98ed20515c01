"""`vllmwall watch` on a real terminal: clean at 80 columns, and the terminal is as before."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from tests.support.guarded import PATIENCE, Guarded, guarded
from tests.support.lab import Lab
from vllmwall.api.watch_shapes import WatchJson

pytestmark = pytest.mark.kernel

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"


class Terminal:
    """A pseudo-terminal with `vllmwall watch` on it."""

    def __init__(self, node: Guarded, columns: int = 80, lines: int = 24) -> None:
        self.ours, theirs = pty.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(self.ours)
        command = [sys.executable, "-m", "vllmwall", "--socket"]
        command += [str(node.runtime / "control.sock"), "watch", "--interval", "0.2"]
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 one thread
            env={**os.environ, "TERM": "xterm", "COLUMNS": "", "LINES": ""},
        )
        os.close(theirs)
        self.seen = b""

    def resize(self, columns: int, lines: int) -> None:
        """Make it another size."""
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self, seconds: float = 0.1) -> None:
        """Take what was drawn meanwhile."""
        if select.select([self.ours], [], [], seconds)[0]:
            try:
                self.seen += os.read(self.ours, 65536)
            except OSError:
                return

    def until(self, text: str, start: int = 0) -> str:
        """Wait until the screen shows it; what was drawn last."""
        deadline = time.monotonic() + PATIENCE
        while text.encode() not in self.seen[start:]:
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen[-3000:]!r}"
            self.read()
        return self.frames()[-1]

    def frames(self) -> list[str]:
        """The whole pictures that were drawn, without colours."""
        plain = re.sub(rb"\x1b\[[0-9;]*m", b"", self.seen)
        return [part.decode() for part in plain.split(b"\x1b[H")[1:]]

    def end(self) -> int:
        """Wait for the end; the exit status."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            self.read()
        self.read()
        return self.process.wait(timeout=1)

    def close(self) -> None:
        """Give everything back."""
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(lab, tmp_path) as found:
        yield found


@pytest.fixture
def terminal(node: Guarded) -> Iterator[Terminal]:
    made = Terminal(node)
    try:
        made.until("LAST EVENTS")
        yield made
    finally:
        made.close()


def is_restored(terminal: Terminal) -> bool:
    """The alternate screen is left, the cursor is shown, keys are as before."""
    seen = terminal.seen
    return (
        seen.rfind(LEAVE) > seen.rfind(ENTER) >= 0
        and seen.rfind(SHOW) > seen.rfind(HIDE) >= 0
        and termios.tcgetattr(terminal.ours)[:4] == terminal.before[:4]
    )


@pytest.mark.parametrize("ending", ["q", "\x03", signal.SIGTERM, signal.SIGHUP])
def test_it_ends_clean(terminal: Terminal, ending: str | signal.Signals) -> None:
    """By q, Ctrl-C and signals: status 0, and a terminal that one can go on with."""
    if isinstance(ending, str):
        os.write(terminal.ours, ending.encode())
    else:
        terminal.process.send_signal(ending)
    assert 0 == terminal.end()
    assert is_restored(terminal)


def test_what_comes_is_shown_and_lines_fit_80_columns(node: Guarded, terminal: Terminal) -> None:
    """A port, its rule, the drops and the event, live."""
    node.rank().open("tcp", "::", 29500)
    frame = terminal.until("tcp [::]:29500")
    assert "refused" in terminal.until("listener_walled")
    node.lab.stranger.connect(node.lab.node.ipv4, 29500)
    terminal.until("/s")
    assert "stands" in frame
    lines = [one for frame in terminal.frames() for one in frame.replace("\r", "").split("\n")]
    cleaned = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", one) for one in lines]
    assert max(map(len, cleaned)) <= 80
    assert all(frame.count("\n") < 24 for frame in terminal.frames())
    bad = [frame for frame in terminal.frames()[1:-1] if "q ends" not in frame]
    assert [] == bad  # no line took two


@pytest.mark.parametrize("size", [(40, 10), (200, 50), (10, 3)])
def test_another_size_is_drawn_at_once(terminal: Terminal, size: tuple[int, int]) -> None:
    """Also one in which nearly nothing has room."""
    terminal.resize(*size)
    start = len(terminal.seen)
    deadline = time.monotonic() + PATIENCE
    while len(terminal.seen[start:].split(b"\x1b[H")) < 4:
        assert time.monotonic() < deadline
        terminal.read()
    frame = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.frames()[-2]).replace("\r", "")
    assert max(map(len, frame.split("\n"))) <= size[0]
    assert frame.count("\n") < size[1]


def test_a_daemon_that_ends_is_said_and_the_next_one_is_shown(
    node: Guarded, terminal: Terminal
) -> None:
    """No picture may look fresh that is not."""
    node.stop()
    terminal.until("no daemon answers")
    start = len(terminal.seen)
    node.start()
    terminal.until("daemon started", start)
    deadline = time.monotonic() + PATIENCE
    while "no daemon" in terminal.frames()[-2]:
        assert time.monotonic() < deadline
        terminal.read()
    assert terminal.process.poll() is None


def test_without_a_terminal_it_prints_one_plain_look(node: Guarded) -> None:
    """For a pipe, a log, a pager."""
    command = [sys.executable, "-m", "vllmwall", "--socket", str(node.runtime / "control.sock")]
    done = subprocess.run([*command, "watch"], capture_output=True, text=True, check=True)
    assert "Safe" in done.stdout
    assert "\x1b" not in done.stdout
    done = subprocess.run([*command, "watch", "--json"], capture_output=True, text=True, check=True)
    TypeAdapter(WatchJson).validate_python(json.loads(done.stdout), strict=True)


def test_without_a_daemon_it_says_so_and_leaves_the_terminal_alone(node: Guarded) -> None:
    """Status 3, in words."""
    node.stop()
    terminal = Terminal(node)
    try:
        assert 3 == terminal.end()
        assert b"no daemon answers" in terminal.seen
        assert ENTER not in terminal.seen
    finally:
        terminal.close()
