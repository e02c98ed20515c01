"""Debian roots for boxes, and the packages that are put into them. Made once, kept in .cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zlib
from functools import lru_cache
from pathlib import Path

import pytest

from tests.system.box import REPOSITORY

_INCLUDED = "systemd,systemd-sysv,dbus,nftables,libnftables1,iproute2,netbase,procps,python3"
# For the .rpm; and one suite has systemd's own Python bindings, the others use our stand-in.
_MORE = {"trixie": ",python3-systemd,rpm,dnf,createrepo-c"}
SUITES = ("bookworm", "trixie", "sid")
"""Python 3.11, 3.13, 3.14 under systemd 252, 257, 262; nft 1.0.6, 1.1.3, 1.1.7."""
ROOTS = Path(os.environ.get("ROOTS", REPOSITORY / ".cache/roots"))
"""Where they are kept: 300 MB each."""
OLD, NEW = "0.0.9", "0.1.0"
"""Versions of one length: what tells them apart in a package is a byte, not a size or a date."""


def root(suite: str, *more: str) -> Path:
    """A bootable root of that suite, with what our package depends on and ``more`` packages.

    Skips where none can be.
    """
    included = ",".join((_INCLUDED + _MORE.get(suite, ""), *more))
    made = ROOTS / f"{suite}-{zlib.crc32(included.encode()):08x}"
    if not made.exists() and (reason := _why_not_made(suite, included, made)):
        pytest.skip(f"PACKAGES ARE NOT TESTED ON A REAL SYSTEM: {reason}")
    return made


@lru_cache  # who cannot make one now cannot in the next test
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


@lru_cache
def package(kind: str, version: str) -> Path:
    """The .deb or .rpm of this tree, as ``version``."""
    # One date for all: files of two versions that differ by nothing but what is in them.
    environment = {**os.environ, "VERSION": version, "SOURCE_DATE_EPOCH": "1767225600"}
    command = [str(REPOSITORY / "packaging/build"), kind]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert 0 == done.returncode, done.stderr
    (built,) = (REPOSITORY / "dist").glob(f"vllmwall[-_]{version}-1*.{kind}")
    return built
