"""Debian roots for boxes, each made once and kept in .cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zlib
from functools import lru_cache
from pathlib import Path

import pytest

from tests.support.sharing import CACHE, cache_lock

_INCLUDED = "systemd,systemd-sysv,dbus,nftables,libnftables1,iproute2,netbase,procps,python3"
# For the .rpm; and one suite has systemd's own Python bindings, the others use our stand-in.
_MORE = {"trixie": ",python3-systemd,rpm,dnf,createrepo-c"}
SUITES = ("bookworm", "trixie", "sid")
"""Python 3.11, 3.13, 3.14 under systemd 252, 257, 262; nft 1.0.6, 1.1.3, 1.1.7."""
ROOTS = Path(os.environ.get("ROOTS", CACHE / "roots"))
"""Where they are kept: 300 MB each."""


def root(suite: str, *more: str) -> Path:
    """A bootable root of that suite, with what our package depends on and ``more`` packages.

    Skips where none can be.
    """
    included = ",".join((_INCLUDED + _MORE.get(suite, ""), *more))
    made = ROOTS / f"{suite}-{zlib.crc32(included.encode()):08x}"
    with cache_lock(f"root-{made.name}"):  # one worker makes it, the others wait
        reason = "" if made.exists() else _why_not_made(suite, included, made)
    if reason:
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
