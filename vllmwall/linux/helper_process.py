"""A Python process of our own that answers once, in JSON: its imports are gone when it has ended.

The process is isolated and has our own search path, so it works from a package, an environment and
a checkout alike. It is read without waiting: its pipe belongs into the loop's poll set. A process
that takes more than ten seconds is killed.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from vllmwall import __version__

_SECONDS = 10.0  # the watchdog allows thirty
_MOST = 16 << 20  # bytes of an answer; a configuration with 100,000 networks takes 3 MB
_ARGUMENTS = (
    "import sys; at = int(sys.argv.pop(1)); sys.path[:] = sys.argv[at:]; del sys.argv[at:]\n"
)
# No plugin may decide what is valid, and searching for plugins takes pydantic 30 ms.
_ENVIRONMENT = {"PYDANTIC_DISABLE_PLUGINS": "__all__"}


class HelperError(Exception):
    """The process gave no usable answer. The text is the reason."""


class OtherVersionError(HelperError):
    """The answer comes from another version: a package was upgraded while this process ran."""


class HelperProcess:
    """A process that runs ``code`` with ``arguments`` in `sys.argv`; it has started already.

    The code ends with `answer`. Raises HelperError when no process can be started.
    """

    def __init__(self, code: str, *arguments: str) -> None:
        options = ["-I", "-S", "-B"] if sys.dont_write_bytecode else ["-I", "-S"]
        # A checkout is installed by a finder, which is not in the path.
        places = [*sys.path, str(Path(__file__).parents[2])]
        given = [str(len(arguments) + 1), *arguments, *places]
        self._pipe, out = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._pipe, False)
        try:
            self._process = subprocess.Popen(
                [sys.executable, *options, "-c", _ARGUMENTS + code, *given],
                env={**os.environ, **_ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=out,
            )
        except OSError as error:
            os.close(self._pipe)
            raise HelperError(f"no helper process can be started: {error}") from error
        finally:
            os.close(out)
        self._answer = b""
        self.deadline = time.monotonic() + _SECONDS

    def fileno(self) -> int:
        """The descriptor to poll for input."""
        return self._pipe

    def ended(self) -> bool:
        """Read what there is, without waiting. True: `result` can be called.

        Raises HelperError, and ends the process, when its time is over or the answer too long.
        """
        with suppress(BlockingIOError):
            while more := os.read(self._pipe, 1 << 16):
                self._answer += more
                if len(self._answer) > _MOST:
                    self.kill()
                    raise HelperError("the helper process gave too long an answer")
            return True
        if time.monotonic() >= self.deadline:
            self.kill()
            raise HelperError(f"the helper process did not answer within {_SECONDS:g} s")
        return False

    def result(self) -> object:
        """The answer of a process that has `ended`. Raises HelperError."""
        self.kill()  # it ends by itself: this keeps one that only closed its pipe from staying
        version, _, text = self._answer.partition(b"\n")
        if not self._answer.endswith(b"\n"):
            raise HelperError("the helper process ended without an answer")
        if version != __version__.encode():
            raise OtherVersionError("another version of vllmwall is installed now")
        try:
            found: object = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise HelperError(f"the helper process gave no JSON: {error}") from error
        return found

    def wait(self) -> object:
        """The answer, when waiting is fine. Raises HelperError."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        while not self.ended():
            poll.poll(max(0.0, self.deadline - time.monotonic()) * 1000)
        return self.result()

    def kill(self) -> None:
        """End the process; only once. One that hangs in the kernel is reaped by the next start."""
        self._process.kill()
        os.close(self._pipe)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=0.01)


def answer(value: object) -> NoReturn:
    """Answer the process that started this one with a value that JSON can hold, and end."""
    sys.stdout.buffer.write(__version__.encode() + b"\n" + json.dumps(value).encode() + b"\n")
    sys.stdout.buffer.flush()
    os._exit(0)  # at once: an orderly end takes 20 ms
