"""A Python process of our own that answers in JSON: its imports are gone when it has ended.

The process is isolated and has our own search path, so it works from a package, an environment and
a checkout alike. It is read without waiting: its pipe belongs into the loop's poll set. A process
that takes more than ten seconds is killed. It answers once (`answer`, `HelperProcess.result`), or
line by line (`answer_lines`, `HelperProcess.lines`).
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable
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

    The code ends with `answer` or `answer_lines`. ``given`` is its standard input. Raises
    HelperError when no process can be started.
    """

    def __init__(self, code: str, *arguments: str, given: bytes = b"") -> None:
        options = ["-I", "-S", "-B"] if sys.dont_write_bytecode else ["-I", "-S"]
        # A checkout is installed by a finder, which is not in the path.
        places = [*sys.path, str(Path(__file__).parents[2])]
        words = [str(len(arguments) + 1), *arguments, *places]
        try:
            stdin = _holding(given)
        except OSError as error:
            raise HelperError(f"no helper process can be started: {error}") from error
        pipe, out = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(pipe, False)
        try:
            self._process = subprocess.Popen(
                [sys.executable, *options, "-c", _ARGUMENTS + code, *words],
                env={**os.environ, **_ENVIRONMENT},
                stdin=stdin,
                stdout=out,
            )
        except OSError as error:
            os.close(pipe)
            raise HelperError(f"no helper process can be started: {error}") from error
        finally:
            os.close(out)
            os.close(stdin)
        self._pipe = pipe
        self._answer = b""
        self._taken = 0
        self.deadline = time.monotonic() + _SECONDS

    def fileno(self) -> int:
        """The descriptor to poll for input. Not after `kill`."""
        return self._pipe

    def ended(self) -> bool:
        """Read what there is, without waiting. True: `result` can be called.

        Raises HelperError, and ends the process, when its time is over or the answer too long.
        """
        with suppress(BlockingIOError):
            while more := os.read(self.fileno(), 1 << 16):
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
        if not self._answer.endswith(b"\n"):
            raise HelperError("the helper process ended without an answer")
        return _value(self._answer[self._after_version() :])

    def lines(self) -> list[object]:
        """The answers that were read since the last call. Raises HelperError."""
        end = self._answer.rfind(b"\n") + 1
        if not end:
            return []
        begin = self._taken or self._after_version()
        self._taken = end
        return [_value(line) for line in self._answer[begin:end].splitlines()]

    def wait(self) -> object:
        """The answer, when waiting is fine. Raises HelperError."""
        self.wait_until_ended()
        return self.result()

    def wait_until_ended(self) -> None:
        """Wait. Raises HelperError as `ended` does."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        while not self.ended():
            poll.poll(max(0.0, self.deadline - time.monotonic()) * 1000)

    def _after_version(self) -> int:
        version, _, _ = self._answer.partition(b"\n")
        if version != __version__.encode():
            raise OtherVersionError("another version of vllmwall is installed now")
        return len(version) + 1

    def kill(self) -> None:
        """End the process. One that hangs in the kernel is reaped by the next start."""
        if self._pipe < 0:
            return
        self._process.kill()
        os.close(self._pipe)
        self._pipe = -1
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=0.01)


def answer(value: object) -> NoReturn:
    """Answer the process that started this one with a value that JSON can hold, and end."""
    answer_lines((value,))


def answer_lines(values: Iterable[object]) -> NoReturn:
    """Answer with each of these values as soon as it is there, and end."""
    out = sys.stdout.buffer
    out.write(__version__.encode() + b"\n")
    for value in values:
        out.write(json.dumps(value).encode() + b"\n")
        out.flush()
    out.flush()
    os._exit(0)  # at once: an orderly end takes 20 ms


def _value(text: bytes) -> object:
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HelperError(f"the helper process gave no JSON: {error}") from error
    return found


def _holding(given: bytes) -> int:
    """A descriptor that these bytes can be read from: a pipe could be too small for them."""
    if not given:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    made = os.memfd_create("vllmwall", os.MFD_CLOEXEC)
    with os.fdopen(made, "wb", closefd=False) as file:
        file.write(given)
    os.lseek(made, 0, os.SEEK_SET)
    return made
