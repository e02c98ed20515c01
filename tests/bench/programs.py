"""The benchmark's C programs: built when their source is newer, controlled line by line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.support.ending import end_group
from tests.support.lab import Host

SOURCES = Path(__file__).parent
BUILT = SOURCES.parents[1] / ".cache" / "bench"
# The workload must look like Python to recognition; see rank.c. So must one of the programs
# in the exec load, because the kernel filters out the others for the daemon.
RANK = "python3-rank"
CROWD = "python3-crowd"
NOTHING = "nothing"
PYTHON_NOTHING = "python3-nothing"
_NAMES = {
    "hammer": "hammer",
    RANK: "rank",
    CROWD: "crowd",
    "watch": "watch",
    "execs": "execs",
    "pairs": "pairs",
    NOTHING: "nothing",
    PYTHON_NOTHING: "nothing",
}


def built(name: str) -> Path:
    """The executable, compiled if needed. Raises CalledProcessError without a C compiler."""
    target, source = BUILT / name, SOURCES / f"{_NAMES[name]}.c"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        BUILT.mkdir(parents=True, exist_ok=True)
        flags = ["-static"] if _NAMES[name] == "nothing" else []
        subprocess.run(["cc", "-O2", *flags, "-o", str(target), str(source)], check=True)
    return target


class Conversation:
    """A program on a host that answers lines with lines; its first line is ``ready``.

    A context manager: leaving ends the program.
    """

    def __init__(
        self, host: Host, argv: Sequence[str], env: Mapping[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            host.command(argv),
            env={**os.environ, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid
        first = self.listen()
        assert "ready" == first, f"{argv[0]} printed {first!r} instead of ready"

    def __enter__(self) -> Conversation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end_group(self._process)
        if self._process.stdin:
            self._process.stdin.close()

    def tell(self, line: str) -> None:
        """Send a line without waiting for an answer."""
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def listen(self) -> str:
        """The next line. Raises EOFError when the program has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EOFError(f"process {self.pid} ended with {self._process.wait()}")
        return line.strip()

    def ask(self, line: str) -> str:
        """Send a line and wait for the answer."""
        self.tell(line)
        return self.listen()
