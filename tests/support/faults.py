"""Faults for a daemon under test: a library preloaded into it, see faults.c."""

from __future__ import annotations

import subprocess
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from tests.support.sharing import CACHE, cache_lock

_SOURCE = Path(__file__).with_suffix(".c")


@lru_cache(maxsize=1)
def library() -> Path:
    """The preloaded library of this source. Raises CalledProcessError when it does not compile."""
    target = CACHE / "faults" / f"{zlib.crc32(_SOURCE.read_bytes()):08x}.so"
    with cache_lock("faults"):
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            unready = target.with_suffix(".new")
            command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(unready), str(_SOURCE), "-ldl"]
            subprocess.run(command, check=True)
            unready.rename(target)
    return target


def faulty(**settings: object) -> Mapping[str, str]:
    """The environment of a daemon with these faults: ``kill_at=3`` is FAULT_KILL_AT."""
    named = {f"FAULT_{name.upper()}": str(value) for name, value in settings.items()}
    return {"LD_PRELOAD": str(library()), **named}
