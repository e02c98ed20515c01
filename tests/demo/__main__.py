"""`make demo`: real workloads, a peer and a stranger; first without a wall, then behind one.

Everything happens in network namespaces made for it; the host's own network and rules are
never touched, and nothing stays behind. Exits 1 when the wall is not as it must be.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from rich.console import Console

from tests.demo.cast import Cast, stand_in_cast, vllm_cast
from tests.demo.seen import explained, look, mistakes
from tests.demo.table import after_table, before_table
from tests.support.guarded import running
from tests.support.lab import Lab
from tests.workloads.starting import JobFailedError

_STEP_SECONDS = 20.0  # a step takes a fraction of one; torch gives up after far more
CONSOLE = Console(highlight=False, width=min(100, Console().width))


def say(text: str) -> None:
    """One line of progress."""
    CONSOLE.print(f"  [dim]·[/] {text}")


def show(lab: Lab, folder: Path, cast: Cast) -> list[str]:
    """Both halves; what went wrong."""
    say("the peer and the stranger try every listener of the node")
    seen = look(lab, cast)
    CONSOLE.print()
    CONSOLE.print(before_table(seen))
    CONSOLE.print()
    began = time.monotonic()
    say(f"vllmwall daemon, with {lab.peer.ipv4} and {lab.peer.ipv6} as peers")
    wall = running(lab, folder / "wall")
    wall.wait_until_guarded(one.listening for one in seen if one.is_workload)
    say(f"the wall is active {time.monotonic() - began:.1f} s after the daemon's start")
    worked = cast.progress()
    seen = explained(look(lab, cast), wall.ask("status"))
    CONSOLE.print()
    CONSOLE.print(after_table(seen))
    CONSOLE.print()
    wrong = mistakes(seen) + stalled(cast, worked)
    CONSOLE.print("[bold]vllmwall status[/] says: " + str(wall.ask("status")["verdict"]))
    return wrong


def stalled(cast: Cast, before: str) -> list[str]:
    """Say that both nodes go on working together; what is wrong when they do not."""
    if not before:
        return []
    deadline = time.monotonic() + _STEP_SECONDS
    while cast.progress() == before and time.monotonic() < deadline:
        time.sleep(0.1)
    if cast.progress() == before:
        return [f"training stands still at {before}"]
    CONSOLE.print(f"Training over both nodes goes on: from {before} to {cast.progress()}.")
    return []


def run(*, vllm: bool) -> int:
    """The whole demo; its exit status."""
    CONSOLE.print("[bold]Three hosts in network namespaces: a node, a trusted peer, a stranger[/]")
    with tempfile.TemporaryDirectory(prefix="vllmwall-demo-") as name, Lab() as lab:
        folder = Path(name)
        cast = (vllm_cast if vllm else stand_in_cast)(lab, folder, say)
        wrong = show(lab, folder, cast)
    for mistake in wrong:
        CONSOLE.print(f"[red]not as it must be:[/] {mistake}")
    if not wrong:
        CONSOLE.print(
            "[green]As it must be:[/] the stranger gets the API and nothing else of the workloads."
        )
    return 1 if wrong else 0


def _stop_once(_number: int, _frame: FrameType | None) -> None:
    """An impatient second Ctrl-C must not interrupt the taking away."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Read the command line, run, and leave nothing behind, also on Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--vllm", action="store_true", help="a real vLLM with a tiny model")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        CONSOLE.print("The demo makes network namespaces and needs root: sudo make demo")
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop_once)
    try:
        return run(vllm=arguments.vllm)
    except KeyboardInterrupt:
        CONSOLE.print("\nStopped; everything is taken away.")
        return 130
    except JobFailedError as error:
        CONSOLE.print(f"[red]{error}[/]")
        return 1


if __name__ == "__main__":
    sys.exit(main())
