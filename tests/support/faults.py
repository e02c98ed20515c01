"""Faults for a daemon under test: a library preloaded into it, see faults.c."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")
_BUILT = _SOURCE.parents[2] / ".cache" / "faults"


@lru_cache(maxsize=1)
def library() -> Path:
    """The preloaded library, compiled anew for this run. Raises CalledProcessError."""
    _BUILT.mkdir(parents=True, exist_ok=True)
    target = _BUILT / "faults.so"
    subprocess.run(
        ["cc", "-O2", "-shared", "-fPIC", "-o", str(target), str(_SOURCE), "-ldl"], check=True
    )
    return target


def faulty(**settings: object) -> Mapping[str, str]:
    """The environment of a daemon with these faults: ``kill_at=3`` is FAULT_KILL_AT."""
    named = {f"FAULT_{name.upper()}": str(value) for name, value in settings.items()}
    return {"LD_PRELOAD": str(library()), **named}
