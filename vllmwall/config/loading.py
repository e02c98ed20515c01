"""Loads files into a `Config`, or raises one error with all problems.

Each file is validated by itself, so that a problem has a file and a line, and so that values which
a later file overrides are checked too; then all files together; then the merged result.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from vllmwall.config import checks
from vllmwall.config.files import TomlFile, merge, read_files
from vllmwall.config.models import Config
from vllmwall.config.problems import ConfigError, Problem
from vllmwall.config.wording import complaints
from vllmwall.model import Network


def loaded(path: Path, conf_d: Path) -> Config:
    """The configuration in ``path`` and ``conf_d/*.toml``. Raises ConfigError."""
    reading = read_files(path, conf_d)
    problems = [*reading.problems]
    for file in reading.files:
        problems.extend(_problems_of(file))
    for check in checks.ALL:
        problems.extend(check(reading.files))
    if problems:
        raise ConfigError(problems)
    config = Config.model_validate(merge(reading.files))
    return config.noted(tuple(file.path for file in reading.files), _cidrs(reading.files))


def _problems_of(file: TomlFile) -> Iterator[Problem]:
    try:
        Config.model_validate(file.tree)
    except ValidationError as error:
        for key, message in complaints(error):
            yield file.problem(key, message)


def _cidrs(files: list[TomlFile]) -> dict[str, tuple[Network, ...]]:
    """peers.cidrs by file. The files have been validated."""
    found = {}
    for file in files:
        peers = Config.model_validate(file.tree).peers
        if peers.cidrs:
            found[str(file.path)] = peers.cidrs
    return found
