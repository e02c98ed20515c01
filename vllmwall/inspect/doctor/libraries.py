"""What runs us: Python, the libraries of ours, and those that a package or the system brings."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from vllmwall.inspect.doctor.diagnosis import Diagnosis, fail, ok
from vllmwall.linux.systemd import in_use

_LIBRARIES = ("pyroute2", "pip-nftables", "psutil", "pydantic", "structlog")
_RELEASE = re.compile(rb"\0(\d+\.\d+(?:\.\d+){1,2})\0")  # PACKAGE_VERSION, as its build set it


def libraries() -> Iterator[Diagnosis]:
    """Everything that was loaded to get this far."""
    yield ok("Python", f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}")
    yield ok("libraries", ", ".join(f"{one} {_version(one)}" for one in _LIBRARIES))
    yield ok("systemd's bindings", in_use())
    yield _libnftables()


def _libnftables() -> Diagnosis:
    """The system's: no Python package brings one."""
    subject = "libnftables"
    try:
        import nftables

        nftables.Nftables()
    except (ImportError, OSError) as error:
        remedy = "apt install libnftables1, or: dnf install nftables-libs"
        return fail(subject, f"cannot be loaded, so there is no wall: {error}", remedy)
    file = loaded("libnftables")
    if file is None:
        return ok(subject, "linked in")
    module = Path(str(nftables.__file__)).resolve()
    return ok(subject, f"{release_in(file)} ({file}), by {module}")


def loaded(name: str) -> Path | None:
    """The file of a library in this process; None: there is none of that name."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if name in line and ".so" in line:
            return Path(line.split()[-1]).resolve()
    return None


def release_in(file: Path) -> str:
    """The version that a library was built as; its file is named by its interface's."""
    found = _RELEASE.search(file.read_bytes())
    return found[1].decode() if found else "of an unknown version"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"
