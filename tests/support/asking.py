"""Commands asked in endless loops, each by a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

LOOP = """
import sys
from pathlib import Path
from vllmwall.api.client import request
while True:
    request(sys.argv[2], socket_path=Path(sys.argv[1]))
    print("answered", flush=True)
"""


@contextmanager
def asked_in_loops(socket_path: Path, *commands: str) -> Iterator[None]:
    """Ask these commands again and again until the block ends; each has been answered once."""
    with ExitStack() as stack:
        started = [
            subprocess.Popen(
                [sys.executable, "-c", LOOP, str(socket_path), command],
                stdout=subprocess.PIPE,
                text=True,
            )
            for command in commands
        ]
        for process in started:
            stack.callback(process.wait)
            stack.callback(process.kill)
        for process in started:
            assert process.stdout is not None
            stack.enter_context(process.stdout)
            assert process.stdout.readline() == "answered\n"
        yield
        for process, command in zip(started, commands, strict=True):
            assert process.poll() is None, f"{command} was not answered any more"
