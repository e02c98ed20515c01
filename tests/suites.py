"""Test suites: what runs side by side, what runs alone afterwards, and one exit status for both.

    python -m tests.suites fast|kernel|all [arguments for pytest]

``fast`` is everything but stories, real vLLM and booted systems; ``kernel`` is what needs network
namespaces and no more; ``all`` leaves nothing out. Tests with the
mark `serial` measure time or memory, or load a core on purpose: they run last, one at a time.

A few tests that fail beside others run once more, alone, and are named in the summary: their
promise is the product's, not that of a busy machine. A test that fails alone fails the suite.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

SUITES = {
    "fast": "not scenario and not system and not vllm and not nccl",
    "kernel": "kernel and not system",
    "all": "",
}
_COMPILED = Path(__file__).parents[1] / ".cache/pycache"
_FAILED, _NO_TESTS = 1, 5  # pytest.ExitCode
_MOST_AGAIN = 10  # more than these is a fault, not a busy machine
_LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")


def workers() -> int:
    """One more than there are processors: about half of a test's time is waiting for packets."""
    return int(os.environ.get("JOBS") or 1 + len(os.sched_getaffinity(0)))


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


def again(marks: str, arguments: list[str]) -> tuple[int, str]:
    """Run the tests that failed once more, one at a time; many of them are not run again."""
    failed = json.loads(_LAST_FAILED.read_text()) if _LAST_FAILED.exists() else {}
    if not 0 < len(failed) <= _MOST_AGAIN:
        return _FAILED, f"{len(failed)} tests failed"
    names = ", ".join(sorted(failed))
    status, last = run("failed", marks, ["--last-failed", *arguments])
    return status, f"{last} (failed beside others: {names})"


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
    beside = f"{of_suite}not serial"
    runs = [("parallel", *run("parallel", beside, [*spread, *arguments]))]
    if runs[0][1] == _FAILED:
        runs.append(("alone", *again(beside, [*arguments])))
    runs.append(("serial", *run("serial", f"{of_suite}serial", [*arguments])))
    lines = [f"== {suite}: {time.monotonic() - begun:.0f} s, {workers()} workers"]
    lines += [f"== {name}: exit status {status}; {last.strip('= ')}" for name, status, last in runs]
    print("\n".join(lines))
    if file := os.environ.get("SUMMARY"):
        Path(file).write_text("\n".join(lines) + "\n")
    if runs[1][0] == "alone":
        del runs[0]  # what failed there was run again
    statuses = [status for _, status, _ in runs if status != _NO_TESTS]
    return max(statuses, default=_NO_TESTS)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in SUITES:
        sys.exit(f"usage: {Path(__file__).stem} {'|'.join(SUITES)} [arguments for pytest]")
    sys.exit(main(*sys.argv[1:]))
