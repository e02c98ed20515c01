"""The scripts of packaging/, which are no package: what they define."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

PACKAGING = Path(__file__).parents[2] / "packaging"


def packaging(name: str) -> SimpleNamespace:
    """The names that ``packaging/NAME.py`` defines; the script itself does not run."""
    return SimpleNamespace(**runpy.run_path(str(PACKAGING / f"{name}.py")))
