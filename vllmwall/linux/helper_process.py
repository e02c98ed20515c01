"""Asks a process of our own, so that what it imports is gone from memory when it has ended.

The process is Python's, isolated, with our own search path: it works from a package, an
environment and a checkout alike. Whoever asks has another way where there is no answer: no process
left, killed, ten seconds over.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from vllmwall import __version__

_VERSION = f"{__version__}\n".encode()
_PATIENCE = 10.0  # seconds; the watchdog's are thirty
_PLACES = "import sys; at = int(sys.argv.pop(1)); sys.path[:] = sys.argv[at:]; del sys.argv[at:]\n"
# Nobody's plugins have a say in what is valid, and looking for them takes pydantic 30 ms.
_ENVIRONMENT = {"PYDANTIC_DISABLE_PLUGINS": "__all__"}


class OtherVersionError(Exception):
    """Another version's files lie where ours did: a package was unpacked over who asks."""


class Apart:
    """A process that runs ``code`` with ``arguments`` in `sys.argv`; it has begun already.

    The code ends with `say`.
    """

    def __init__(self, code: str, *arguments: str) -> None:
        options = ["-I", "-S", "-B"] if sys.dont_write_bytecode else ["-I", "-S"]
        # A checkout is installed by a finder, which is not in the path.
        places = [*sys.path, str(Path(__file__).parents[2])]
        given = [str(len(arguments) + 1), *arguments, *places]
        self._process: subprocess.Popen[bytes] | None = None
        with suppress(OSError):
            self._process = subprocess.Popen(
                [sys.executable, *options, "-c", _PLACES + code, *given],
                env={**os.environ, **_ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )

    def answer(self) -> object | None:
        """What it says; None: it did not get that far. Waits. Raises OtherVersionError."""
        said = _all_of(self._process) if self._process else None
        if said is None:
            return None
        if not said.startswith(_VERSION):
            raise OtherVersionError
        found: object = pickle.loads(said.removeprefix(_VERSION))  # noqa: S301 - our own words
        return found


def say(word: object) -> NoReturn:
    """Answer who started this process, and end."""
    with sys.stdout.buffer as out:
        out.write(_VERSION + pickle.dumps(word))
    os._exit(0)  # at once: to take down what was imported takes 20 ms


def _all_of(process: subprocess.Popen[bytes]) -> bytes | None:
    with process:
        try:
            said, _ = process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            return None
    return None if process.returncode else said
