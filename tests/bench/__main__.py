"""Run the benchmark: `make bench`, `make bench QUICK=1`, `make bench ONLY=exposure`.

Prints one table and writes bench.json. The table includes missed goals and parts that could not be
run. Exit status 1: a part failed, not merely missed a goal.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from tests.bench import cost, exposure, full_pass, hostile, packets, reaction, repair, start
from tests.bench.rows import Row, to_json
from tests.bench.scale import FULL, QUICK, Scale
from tests.bench.stage import Stage, own_folder, sweep
from tests.bench.table import as_table
from tests.support.lab import Lab

PARTS: dict[str, Callable[[Stage], Iterator[Row]]] = {
    "exposure": exposure.measure,
    "reaction": reaction.measure,
    "repair": repair.measure,
    "packets": packets.measure,
    "cost": cost.measure,
    "pass": full_pass.measure,
    "start": start.measure,
    "hostile": hostile.measure,
}


def main() -> int:
    """Measure, print and write; the exit status."""
    options = _options()
    if os.geteuid() != 0:
        print("The benchmark creates network namespaces with rules. Run it as root.")
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):  # clean up on every signal
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))
    sweep()
    begun, rows, failed = time.monotonic(), [], []
    for name in options.only or PARTS:
        try:
            rows += _part(name, QUICK if options.quick else FULL)
        except Exception as error:  # the other parts can still be measured
            failed.append(traceback.format_exc())
            rows.append(Row(name, "all of it", None, "", note=f"failed: {error!r}"))
    _show(rows, f"{_machine()}; {time.monotonic() - begun:.0f} s")
    options.json.write_text(to_json(rows))
    print(f"{options.json} written", *failed, sep="\n")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="Measure vllmwall.")
    parser.add_argument("--quick", action="store_true", help="less of everything: a minute")
    parser.add_argument("--only", action="append", choices=PARTS, help="only this part")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="file for the rows")
    return parser.parse_args()


def _part(name: str, scale: Scale) -> list[Row]:
    with Lab() as lab, own_folder() as folder:
        stage = Stage(lab, folder, scale)
        try:
            return list(PARTS[name](stage))
        finally:
            stage.quiet()


def _machine() -> str:
    load = os.getloadavg()[0]
    cores = f"{os.cpu_count()} cores"
    return f"vllmwall bench: {cores}, Linux {platform.release()}, load before now {load:.1f}"


def _show(rows: list[Row], title: str) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(as_table(rows, title))


if __name__ == "__main__":
    sys.exit(main())
