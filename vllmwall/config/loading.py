"""Loads files into a `Config`, or raises one error with all problems.

Each file is validated by itself, so that a problem has a file and a line, and so that values which
a later file overrides are checked too; then all files together; then the merged result.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from vllmwall.config import checks
from vllmwall.config.files import merge, read_files
from vllmwall.config.models import Config
from vllmwall.config.problems import ConfigError
from vllmwall.config.wording import complaints
from vllmwall.model import Network


def loaded(path: Path, conf_d: Path) -> Config:
    """The configuration in ``path`` and ``conf_d/*.toml``. Raises ConfigError."""
    reading = read_files(path, conf_d)
    problems = [*reading.problems]
    cidrs: dict[Path, tuple[Network, ...]] = {}
    for file in reading.files:
        try:
            cidrs[file.path] = Config.model_validate(file.tree).peers.cidrs
        except ValidationError as error:
            problems += (file.problem(*each) for each in complaints(error))
    for check in checks.ALL:
        problems.extend(check(reading.files))
    if problems:
        raise ConfigError(problems)
    programs = ((file, key) for file in reading.files for key, _ in checks.items(file, "program"))
    places = tuple(file.place(key) for file, key in programs)
    return Config.model_validate(merge(reading.files)).read_from(cidrs, places)
