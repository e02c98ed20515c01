"""A full pass beside one ``ss -ltnp`` on the same node, in the same run.

Opens 500 listeners in 50 processes, starts sleepers until there are 2,000 processes, and times
both, alternating. Prints medians and their ratio; changes no rule.

    python tests/bench/full_pass.py [--listeners 500] [--processes 2000] [--rounds 15]
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vllmwall.decide import decide
from vllmwall.model import Policy, Role
from vllmwall.observe import Observer
from vllmwall.recognize import recognize

_OPENER = """
import socket, sys, time
held = []
for _ in range(int(sys.argv[1])):
    one = socket.socket(); one.bind(("127.0.0.1", 0)); one.listen(); held.append(one)
print("ready", flush=True)
time.sleep(3600)
"""
_OPENERS = 50


@contextmanager
def busy_node(listeners: int, processes: int) -> Iterator[None]:
    """A node with that many listeners and processes, some of them torch ranks."""
    env = {**os.environ, "RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "29500"}
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", _OPENER, str(listeners // _OPENERS)],
            stdout=subprocess.PIPE,
            env=env,
        )
        for _ in range(_OPENERS)
    ]
    missing = max(0, processes - sum(path.name.isdigit() for path in Path("/proc").iterdir()))
    sleepers = [subprocess.Popen(["sleep", "3600"]) for _ in range(missing)]
    try:
        for opener in openers:
            assert opener.stdout is not None
            opener.stdout.readline()
        yield
    finally:
        for child in [*openers, *sleepers]:
            child.send_signal(signal.SIGKILL)
        for child in [*openers, *sleepers]:
            child.wait()


def timed(function: object) -> float:
    """Milliseconds that one call takes."""
    begun = time.perf_counter()
    function()  # type: ignore[operator]
    return (time.perf_counter() - begun) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--listeners", type=int, default=500)
    parser.add_argument("--processes", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    policy = Policy({Role.API: ("public",)})
    with busy_node(options.listeners, options.processes):
        observer = Observer()

        def full_pass() -> None:
            recognition = recognize(observer.observe())
            observer.keep(recognition)
            decide(recognition, policy, ())

        def ss() -> None:
            subprocess.run(["ss", "-Hltnp"], stdout=subprocess.DEVNULL, check=True)

        first = timed(full_pass)
        rounds = [(timed(full_pass), timed(ss)) for _ in range(options.rounds)]
    ours = statistics.median(one for one, _ in rounds)
    theirs = statistics.median(one for _, one in rounds)
    print(f"{options.listeners} listeners, {options.processes} processes, {options.rounds} rounds")
    print(f"full pass  {ours:7.1f} ms   (the first one, nothing known yet: {first:.1f} ms)")
    print(f"ss -ltnp   {theirs:7.1f} ms")
    print(f"ratio      {ours / theirs:7.2f}")


if __name__ == "__main__":
    main()
