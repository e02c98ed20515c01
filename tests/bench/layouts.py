"""The two layouts of vllmwall on disk: from a package, and in a checkout.

The package's is unpacked from dist/*.deb into a temporary folder: its launcher, its libraries,
the distribution's Python, everything compiled as its post-installation script does. The product's
code is the checkout's in both, so an old package measures the current code too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
INSTALLED = "/usr/lib/vllmwall"
_NOT_KEPT = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")


@dataclass(frozen=True)
class Layout:
    """The command of vllmwall in a layout, and an interpreter that does nothing."""

    name: str
    command: tuple[str, ...]
    nothing: tuple[str, ...]


def layouts(folder: Path) -> Iterator[Layout]:
    """The package's layout if a package was built, and the checkout's."""
    if (package := newest_package()) is not None:
        yield packaged(package, folder)
    python = sys.executable
    yield Layout("checkout", (python, "-m", "vllmwall"), (python, "-c", "pass"))


def newest_package() -> Path | None:
    """The newest package of `make deb`; None: none, or it cannot be unpacked here."""
    if shutil.which("dpkg-deb") is None:
        return None
    found = CHECKOUT.glob("dist/vllmwall_*.deb")
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def packaged(package: Path, folder: Path) -> Layout:
    """Unpack a package below ``folder``. Raises CalledProcessError."""
    subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
    library = folder / INSTALLED.lstrip("/")
    ours = library / "site/vllmwall"
    shutil.rmtree(ours)
    shutil.copytree(CHECKOUT / "vllmwall", ours, ignore=shutil.ignore_patterns("__pycache__"))
    launcher = folder / "usr/bin/vllmwall"
    for script in (launcher, library / "main.py"):
        script.write_text(script.read_text().replace(INSTALLED, str(library)))
    python = str(library / "python")
    compiling = ["-m", "compileall", "-q", "-f", "--invalidation-mode", "checked-hash"]
    subprocess.run(  # not checked: some files of the libraries are for newer Pythons
        [python, *compiling, str(library / "site")], stdout=subprocess.DEVNULL, check=False
    )
    return Layout("package", (str(launcher),), (python, "-c", "pass"))


def environment(**more: str) -> dict[str, str]:
    """This environment without variables that slow Python down or prevent compiled modules."""
    return {**{key: value for key, value in os.environ.items() if key not in _NOT_KEPT}, **more}
