"""`make upstream`: install the newest vLLM, SGLang router, Ray, LMDeploy and Dynamo, start each in
a namespace of its own, and report what our tables do not know. Root.

Exits with 1 where something is unknown, and with 2 where a package could not be looked at.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.upstream import known
from tests.upstream.packages import CACHE, PACKAGES, ROOT, Package
from tests.upstream.running import record, unknown_listeners
from tests.upstream.surface import surface

_VERSION = re.compile(r"-(\d[^-]*)-")
_FAULTS = (LookupError, OSError, RuntimeError, AssertionError, subprocess.SubprocessError)
_PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet", "--quiet")


@dataclass
class Outcome:
    """What one package has that nobody knows; ``failed`` says why it could not be looked at."""

    package: str
    version: str = ""
    listeners: list[str] = field(default_factory=list)
    routes: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    was_started: bool = False
    failed: str = ""

    @property
    def unknown(self) -> list[str]:
        """One line each."""
        return [
            *(f"listener {one}" for one in self.listeners),
            *(f"route {one}" for one in self.routes),
            *(f"flag --{one}" for one in self.flags),
        ]


def look_at(package: Package, recordings: Path | None) -> Outcome:
    """The newest release of a package; never raises for what is the package's own fault."""
    outcome = Outcome(package.name)
    try:
        wheel = _newest_wheel(package.read)
        outcome.version = _version_of(wheel)
        found = surface(wheel, package.parts)
        outcome.routes = sorted(found.routes - known.routes(package.name))
        outcome.flags = sorted(found.flags - known.flags())
        if package.start:
            _install(package, outcome.version)
            outcome.listeners = _listeners(package, outcome.version, recordings)
            outcome.was_started = True
    except (
        LookupError,
        OSError,
        RuntimeError,
        AssertionError,
        subprocess.SubprocessError,
    ) as error:
        outcome.failed = str(error)
    return outcome


def _newest_wheel(name: str) -> Path:
    """Downloaded into the cache, where only the newest stays."""
    folder = CACHE / "wheels" / name
    before = set(folder.glob("*.whl"))
    command = [sys.executable, *_PIP, "download", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, "-d", str(folder), name], check=True, capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"), key=lambda path: path.stat().st_mtime)
    for old in before - {wheels[-1]}:
        old.unlink()
    return wheels[-1]


def _version_of(wheel: Path) -> str:
    match = _VERSION.search(wheel.name)
    if match is None:
        raise LookupError(f"{wheel.name} is not the name of a wheel")
    return match.group(1)


def _install(package: Package, version: str) -> None:
    """Its virtual environment, made again for each new version."""
    mark = package.venv / "version"
    if mark.exists() and mark.read_text() == version:
        return
    shutil.rmtree(package.venv, ignore_errors=True)
    if not package.install:  # vLLM for the CPU needs more than pip
        _run([str(ROOT / "tests/setup/torch"), str(package.venv), "vllm"], VLLM_VERSION=version)
    else:
        venv.create(package.venv, with_pip=True)
        for group in package.install:
            _run([str(package.venv / "bin/python"), *_PIP, "install", *group])
    mark.write_text(version)


def _run(command: list[str], **variables: str) -> None:
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise RuntimeError(f"{' '.join(command[:6])}…: {' '.join(last)}")


def _listeners(package: Package, version: str, recordings: Path | None) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="upstream-") as name:
        folder = Path(name)
        found = unknown_listeners(package, folder)
        if recordings:
            record(folder / "snapshot.json", recordings / f"{package.name}-{version}.json", version)
        return found


def _table(outcomes: Iterable[Outcome]) -> Table:
    table = Table("PACKAGE", "VERSION", "STARTED", "UNKNOWN")
    for one in outcomes:
        words = one.failed.splitlines()[-1] if one.failed else "\n".join(one.unknown) or "nothing"
        table.add_row(one.package, one.version, "yes" if one.was_started else "no", words)
    return table


def main() -> int:
    """Look at all packages, or at those that are named."""
    parser = argparse.ArgumentParser(prog="make upstream", description=__doc__)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE")
    parser.add_argument(
        "--record", type=Path, metavar="FOLDER", help="keep snapshots as recordings"
    )
    asked = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("only root can build network namespaces. Run it as root.")
    chosen = [one for one in PACKAGES if not asked.packages or one.name in asked.packages]
    outcomes = []
    for package in chosen:
        print(f"  · {package.name}{': ' + package.why if package.why else ''}", flush=True)
        outcomes.append(look_at(package, asked.record))
    Console().print(_table(outcomes))
    failed = [one.package for one in outcomes if one.failed]
    if failed:
        print(f"not looked at: {', '.join(failed)}", file=sys.stderr)
    return 2 if failed else int(any(one.unknown for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
