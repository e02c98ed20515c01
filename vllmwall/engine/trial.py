"""A change that has to be confirmed: it is rolled back unless somebody confirms it in time.

The change is noted in the runtime directory before it is made, and a process of its own waits:
a systemd timer, or where there is no systemd a child in a session of its own. Neither ends with
the shell, the ssh connection or the daemon. When the time is over and the note is still there,
it restores the previous state.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from vllmwall.linux.files import save_text

_FILE = "unconfirmed.json"
_SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)
_UNIT = "vllmwall-rollback"


@dataclass(frozen=True)
class Unconfirmed:
    """A change on trial. ``what`` is the command, ``until`` in seconds since the epoch."""

    token: str
    what: str
    until: float


def note(runtime_dir: Path, what: str, until: float) -> Unconfirmed:
    """Remember that a change is about to be made. Raises OSError."""
    made = Unconfirmed(os.urandom(8).hex(), what, until)
    save_text(runtime_dir / _FILE, json.dumps(asdict(made)), mode=0o600)
    return made


def noted(runtime_dir: Path) -> Unconfirmed | None:
    """The change that waits to be confirmed; None: there is none. Raises OSError."""
    try:
        return Unconfirmed(**json.loads((runtime_dir / _FILE).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):  # cut short by a crash: it cannot be confirmed
        return Unconfirmed("", "", 0.0)


def forget(runtime_dir: Path) -> None:
    """The change was confirmed or rolled back. Raises OSError."""
    (runtime_dir / _FILE).unlink(missing_ok=True)


def wait_apart(rollback: Sequence[str], seconds: float) -> str:
    """Have vllmwall run with these arguments in ``seconds``, whatever happens to us; what runs it.

    Raises OSError when neither can be started.
    """
    command = [*_as_we_were_started(), *rollback]
    if _SYSTEMD.is_dir():
        timer = ["systemd-run", "--quiet", "--collect", f"--unit={_UNIT}-{os.urandom(4).hex()}"]
        timer += [f"--on-active={seconds:g}s", "--timer-property=AccuracySec=100ms"]
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run([*timer, *command], check=True, timeout=10, capture_output=True)
            return "a systemd timer"
    subprocess.Popen(
        [*command, "--after", f"{seconds:g}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    return "a process of its own"


def _as_we_were_started() -> list[str]:
    """The interpreter, its options and our script: a package's are isolated from `-m vllmwall`."""
    if Path(sys.argv[0]).name in ("main.py", "vllmwall"):
        without_arguments = len(sys.orig_argv) - len(sys.argv) + 1
        return [sys.executable, *sys.orig_argv[1:without_arguments]]
    return [sys.executable, "-m", "vllmwall"]
