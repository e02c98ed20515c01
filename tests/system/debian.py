"""Debian roots for boxes, each made once and kept in .cache.

``python -m tests.system.debian`` makes all of them, while something else is computed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import pytest

from tests.support.sharing import CACHE, cache_lock

_INCLUDED = "systemd,systemd-sysv,dbus,nftables,libnftables1,iproute2,netbase,procps,python3"
# For the .rpm; and one suite has systemd's own Python bindings, the others use our stand-in.
_MORE = {"trixie": ",python3-systemd,rpm,dnf,createrepo-c"}
SUITES = ("bookworm", "trixie", "sid")
"""Python 3.11, 3.13, 3.14 under systemd 252, 257, 262; nft 1.0.6, 1.1.3, 1.1.7."""
_ENGINES = ("docker.io", "runc", "iptables", "podman", "netavark", "aardvark-dns")
_ROOTLESS = ("slirp4netns", "uidmap", "libpam-systemd", "dbus-user-session")
CONTAINERS = (*_ENGINES, *_ROOTLESS)
"""What container engines need."""
VENV = ("python3-venv",)
_EVERY_ROOT = (*((suite, ()) for suite in SUITES), ("bookworm", CONTAINERS), ("bookworm", VENV))
ROOTS = Path(os.environ.get("ROOTS", CACHE / "roots"))
"""Where they are kept: 300 MB each."""


def root(suite: str, *more: str) -> Path:
    """A bootable root of that suite, with what our package depends on and ``more`` packages.

    Skips where none can be.
    """
    made, reason = _made(suite, more)
    if reason:
        pytest.skip(f"PACKAGES ARE NOT TESTED ON A REAL SYSTEM: {reason}")
    return made


@lru_cache  # what cannot be made now cannot be made for the next test
def _made(suite: str, more: tuple[str, ...]) -> tuple[Path, str]:
    """The root, and why there is none."""
    included = ",".join((_INCLUDED + _MORE.get(suite, ""), *more))
    made = ROOTS / f"{suite}-{zlib.crc32(included.encode()):08x}"
    with cache_lock(f"root-{made.name}"):  # one process makes it, the others wait
        return made, "" if made.exists() else _why_not_made(suite, included, made)


def _why_not_made(suite: str, included: str, made: Path) -> str:
    if shutil.which("mmdebstrap") is None:
        return "mmdebstrap is not installed (apt-get install mmdebstrap)"
    unready = made.with_suffix(f".{os.getpid()}")
    ROOTS.mkdir(parents=True, exist_ok=True)
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={included}"]
    command += ["--quiet", '--aptopt=APT::Install-Recommends "false"']
    # Mirrors of a moving suite can be weeks behind; a root is for an hour.
    command += ['--aptopt=Acquire::Check-Valid-Until "false"']
    command += ['--aptopt=Acquire::Languages "none"', "--dpkgopt=path-exclude=/usr/share/man/*"]
    command += [suite, str(unready)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=360)
        if done.returncode != 0:
            said = "; ".join(re.findall("^E: .*", done.stderr, re.MULTILINE)[:2])
            return f"no root of Debian {suite}: {said}"
        if not made.exists():  # another run was quicker
            unready.rename(made)
    finally:
        shutil.rmtree(unready, ignore_errors=True)
    return ""


def make_all() -> int:
    """Make every root that tests boot, two at a time; 1 when one could not be made."""
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda root: _made(*root), _EVERY_ROOT))
    for _, reason in outcomes:
        if reason:
            print(reason, file=sys.stderr)
    return int(any(reason for _, reason in outcomes))


if __name__ == "__main__":
    sys.exit(make_all())
