"""Real processes with the command line, environment and files of a server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from vllmwall.model import Process
from vllmwall.observe.processes import ProcessTable

# What setproctitle does: the title over the command line, zeroes over all that follows.
SLEEPER = """
import ctypes, sys, time
if RENAME := {rename!r}:
    fields = open("/proc/self/stat").read().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[48])
    if {keep!r}:  # setproctitle stops where the variables no longer lie behind each other
        end -= {keep!r}
    ctypes.memmove(start, RENAME.encode().ljust(end - start, bytes(1)), end - start)
print("ready", flush=True)
time.sleep(600)
"""

Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start ``vllm ARGUMENTS`` (a script that sleeps) and observe it; ended afterwards."""
    with ExitStack() as stack:

        def begin(
            *arguments: str,
            env: Mapping[str, str] | None = None,
            rename: str = "",
            keep: int = 0,
            name: str = "vllm",
            folder: Path | None = None,
        ) -> Process:
            script = (folder or tmp_path) / name
            script.parent.mkdir(parents=True, exist_ok=True)
            script.write_text(f"#!{sys.executable}\n{SLEEPER.format(rename=rename, keep=keep)}")
            script.chmod(0o755)
            process = stack.enter_context(
                subprocess.Popen(
                    [script, *arguments],
                    env={"PATH": os.environ["PATH"], **(env or {})},
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=tmp_path,
                )
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            found = ProcessTable().look_at(process.pid)
            assert found is not None
            return found

        yield begin
