"""Reads the configuration in a process of its own: pydantic is gone when that has ended.

With what it imports pydantic is a third of the daemon's memory and of its start, and needed for a
moment. The process is Python's, isolated, with our own search path: it works from a package, an
environment and a checkout alike. Where it cannot be had (no process left, killed, ten seconds
over) the configuration is read here, which costs the memory and nothing else.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vllmwall import __version__
from vllmwall.config import ConfigError, Problem, load

if TYPE_CHECKING:
    from vllmwall.settings import Settings

_VERSION = f"{__version__}\n".encode()
_PATIENCE = 10.0  # seconds; the watchdog's are thirty
_CODE = "import sys; sys.path[:] = sys.argv[2:]; from vllmwall.config import apart; apart.tell()"
# A package was unpacked over the daemon that runs: its code is not what is on the disk.
_OTHER_VERSION = "cannot be read: another version of vllmwall is installed now; restart the daemon"
# Nobody's plugins have a say in what is valid, and looking for them takes 30 ms.
_ENVIRONMENT = {"PYDANTIC_DISABLE_PLUGINS": "__all__"}


class Reading:
    """A configuration that is being read. Starts at once, so that others can begin meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process = _started(path)

    def settings(self) -> Settings:
        """What it says. Waits; raises ConfigError with every problem found."""
        answer = _answer(self._process) if self._process else None
        if answer is None:
            return load(self._path).settings()
        if not answer.startswith(_VERSION):
            raise ConfigError([Problem(str(self._path), None, "", _OTHER_VERSION)])
        said: Settings | tuple[Problem, ...] = pickle.loads(answer.removeprefix(_VERSION))  # noqa: S301 - our own words
        if isinstance(said, tuple):
            raise ConfigError(said)
        return said


def tell() -> None:
    """What the process does: the settings of the file that is its argument, to standard output,
    or the problems with it."""
    gc.disable()  # it ends before there is anything to collect
    said: Settings | tuple[Problem, ...]
    try:
        said = load(Path(sys.argv[1])).settings()
    except ConfigError as error:
        said = error.problems
    with sys.stdout.buffer as out:
        out.write(_VERSION + pickle.dumps(said))
    os._exit(0)  # at once: to take down what was imported takes 20 ms


def _started(path: Path) -> subprocess.Popen[bytes] | None:
    options = ["-I", "-S", "-B"] if sys.dont_write_bytecode else ["-I", "-S"]
    # A checkout is installed by a finder, which is not in the path.
    search = [*sys.path, str(Path(__file__).parents[2])]
    try:
        return subprocess.Popen(
            [sys.executable, *options, "-c", _CODE, str(path), *search],
            env={**os.environ, **_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
    except OSError:
        return None


def _answer(process: subprocess.Popen[bytes]) -> bytes | None:
    """All that it says; None: it did not get that far."""
    with process:
        try:
            said, _ = process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            return None
    return None if process.returncode else said
