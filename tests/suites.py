"""Test suites: what runs side by side, what runs alone afterwards, and one exit status for both.

    python -m tests.suites fast|kernel|all [arguments for pytest]

``fast`` is everything but real vLLM and booted systems; ``kernel`` is what needs network
namespaces and no more; ``all`` leaves nothing out. Tests with the
mark `serial` measure time or memory, or load a core on purpose: they run last, one at a time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

SUITES = {"fast": "not system and not vllm", "kernel": "kernel and not system", "all": ""}
_COMPILED = Path(__file__).parents[1] / ".cache/pycache"
_NO_TESTS = 5  # pytest.ExitCode.NO_TESTS_COLLECTED


def workers() -> int:
    """Half as many again as processors: most tests wait for a packet or a program."""
    return int(os.environ.get("JOBS") or (len(os.sched_getaffinity(0)) * 3 + 1) // 2)


def run(name: str, marks: str, arguments: list[str]) -> tuple[int, str]:
    """Run pytest on the tests with these marks; its exit status and its last line."""
    command = [sys.executable, "-m", "pytest", "-m", marks, *arguments]
    print(f"== {name} tests: {marks}", flush=True)
    with subprocess.Popen(
        command, env=_environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        last = ""
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line.strip() or last
    return process.returncode, last


def _environment() -> dict[str, str]:
    """Keep compiled modules, out of the way: without them a command takes five times as long."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {"PYTHONPYCACHEPREFIX": str(_COMPILED), **kept}


def main(suite: str, *arguments: str) -> int:
    """Run a suite; 0 when every run of pytest passed and a test ran at all."""
    of_suite = f"({SUITES[suite]}) and " if SUITES[suite] else ""
    # Files in the order of collection, the slow ones first: see tests/conftest.py.
    spread = ["-n", str(workers()), "--dist", "loadfile", "--no-loadscope-reorder"]
    begun = time.monotonic()
    runs = [
        ("parallel", *run("parallel", f"{of_suite}not serial", [*spread, *arguments])),
        ("serial", *run("serial", f"{of_suite}serial", [*arguments])),
    ]
    lines = [f"== {suite}: {time.monotonic() - begun:.0f} s, {workers()} workers"]
    lines += [f"== {name}: exit status {status}; {last.strip('= ')}" for name, status, last in runs]
    print("\n".join(lines))
    if file := os.environ.get("SUMMARY"):
        Path(file).write_text("\n".join(lines) + "\n")
    statuses = [status for _, status, _ in runs if status != _NO_TESTS]
    return max(statuses, default=_NO_TESTS)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in SUITES:
        sys.exit(f"usage: {Path(__file__).stem} {'|'.join(SUITES)} [arguments for pytest]")
    sys.exit(main(*sys.argv[1:]))
