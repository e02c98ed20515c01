"""The packages and the wheel of this tree, each built once in a test run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from tests.support.sharing import CACHE, cache_lock

REPOSITORY = Path(__file__).parents[2]
OLD, NEW = "0.0.9", "0.1.0"
"""Versions of one length: two packages differ by bytes, not by a size or a date."""
# All workers of a run have one of these; a run without workers is alone.
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"process {os.getpid()}"


@lru_cache
def built_package(kind: str, version: str) -> Path:
    """The .deb or .rpm of this tree, as ``version``. Raises AssertionError when that fails."""
    name = f"{version}.{kind}"
    with cache_lock(name):
        if not _is_of_this_run(name):
            build_package(kind, version)
            _note(name)
    (built,) = (REPOSITORY / "dist").glob(f"vllmwall[-_]{version}-1*.{kind}")
    return built


@lru_cache
def built_wheel() -> Path:
    """The wheel of this tree. Raises CalledProcessError when that fails."""
    folder = CACHE / "wheel"
    with cache_lock("wheel"):
        if not _is_of_this_run("wheel"):
            _build_wheel(folder)
            _note("wheel")
    (built,) = folder.glob("vllmwall-*.whl")
    return built


def build_package(kind: str, version: str) -> None:
    """Build it into dist/."""
    # One date for all: files of two versions that differ by nothing but what is in them.
    environment = {**os.environ, "VERSION": version, "SOURCE_DATE_EPOCH": "1767225600"}
    command = [str(REPOSITORY / "packaging/build"), kind]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert 0 == done.returncode, done.stderr


def _build_wheel(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps"]
    with tempfile.TemporaryDirectory(dir=CACHE) as built:
        subprocess.run([*pip, "--wheel-dir", built, str(REPOSITORY)], check=True)
        for old in folder.glob("*.whl"):
            old.unlink()
        (made,) = Path(built).glob("*.whl")
        made.rename(folder / made.name)


def _is_of_this_run(name: str) -> bool:
    noted = CACHE / "locks" / f"{name}.run"
    return noted.exists() and noted.read_text() == _RUN


def _note(name: str) -> None:
    (CACHE / "locks" / f"{name}.run").write_text(_RUN)
