"""Python and the libraries in use: those of Python packages and those of the system."""

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
    """All of these."""
    yield ok("Python", f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}")
    yield ok("libraries", ", ".join(f"{one} {_version(one)}" for one in _LIBRARIES))
    yield ok("systemd's bindings", in_use())
    yield _libnftables()


def _libnftables() -> Diagnosis:
    """The system's; Python packages only bind it."""
    subject = "libnftables"
    try:
        import nftables

        nftables.Nftables()
    except (ImportError, OSError) as error:
        remedy = "apt install libnftables1 (Debian), dnf install nftables-libs (Fedora)"
        return fail(subject, f"cannot be loaded, so no wall can be applied: {error}", remedy)
    file = loaded("libnftables")
    if file is None:
        return ok(subject, "linked in")
    module = Path(str(nftables.__file__)).resolve()
    return ok(subject, f"{release_in(file)} ({file}), by {module}")


def loaded(name: str) -> Path | None:
    """The file of a library that this process has loaded; None: it has not."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if name in line and ".so" in line:
            return Path(line.split()[-1]).resolve()
    return None


def release_in(file: Path) -> str:
    """The release that a library was built as; its file name holds only the ABI version."""
    found = _RELEASE.search(file.read_bytes())
    return found[1].decode() if found else "of an unknown version"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"
