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

from rich.console import Console

from tests.demo.cast import Cast, stand_in_cast, vllm_cast
from tests.demo.seen import explained, look, mistakes
from tests.demo.table import after_table, before_table
from tests.lab import Lab
from tests.wall import RunningWall
from tests.workloads.starting import JobFailedError

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
    wall = RunningWall(lab.node, folder / "wall", [lab.peer.ipv4, lab.peer.ipv6])
    wall.wait_until_guarded(one.listening for one in seen if one.is_workload)
    say(f"the wall stands {time.monotonic() - began:.1f} s after the daemon's start")
    worked = cast.progress()
    seen = explained(look(lab, cast), wall.status())
    CONSOLE.print()
    CONSOLE.print(after_table(seen))
    CONSOLE.print()
    say_whether_nodes_still_work(worked, cast.progress())
    CONSOLE.print("[bold]vllmwall status[/] says: " + wall.command("status").stdout.split("\n")[0])
    return mistakes(seen) + _stalled(worked, cast.progress())


def say_whether_nodes_still_work(before: str, after: str) -> None:
    """Peers must not notice the wall."""
    if before:
        CONSOLE.print(f"Training over both nodes went on meanwhile: from {before} to {after}.")


def _stalled(before: str, after: str) -> list[str]:
    return [f"training stands still at {after}"] if before and before == after else []


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


def main() -> int:
    """Read the command line, run, and leave nothing behind, also on Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--vllm", action="store_true", help="a real vLLM with a tiny model")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        CONSOLE.print("The demo makes network namespaces and needs root: sudo make demo")
        return 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
