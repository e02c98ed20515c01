"""The configuration: /etc/vllmwall/vllmwall.toml and conf.d/*.toml, checked and merged.

Promises a `Config` in which every value is usable, or a `ConfigError` that names every problem
with file, line, key, value and what is allowed. `load` imports pydantic, which takes 90 ms and
stays in memory: the daemon lets another process call it (`vllmwall.config.reading`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vllmwall.config.problems import ConfigError, Problem
from vllmwall.linux.places import CONFIGURATION as DEFAULT_PATH
from vllmwall.linux.places import DROP_INS

if TYPE_CHECKING:
    from vllmwall.config.models import Config

__all__ = ["DEFAULT_PATH", "DROP_INS", "ConfigError", "Problem", "load"]


def load(path: Path = DEFAULT_PATH, conf_d: Path | None = None) -> Config:
    """The configuration in ``path`` and ``conf_d/*.toml`` (default: beside ``path``).

    A missing file counts as empty. Raises ConfigError with every problem found.
    """
    from vllmwall.config.loading import loaded

    return loaded(path, conf_d or path.parent / DROP_INS)
