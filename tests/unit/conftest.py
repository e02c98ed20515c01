"""A configuration directory of a test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vllmwall.config import ConfigError, load
from vllmwall.config.models import Config

Write = Callable[..., Path]


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """An empty /etc/vllmwall."""
    directory = tmp_path / "vllmwall"
    directory.mkdir(mode=0o755)
    return directory


@pytest.fixture
def write(etc: Path) -> Write:
    """Write a file of the configuration; its name is vllmwall.toml unless another is given."""

    def write_file(text: str, name: str = "vllmwall.toml") -> Path:
        path = etc / name
        path.parent.mkdir(mode=0o755, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
        return path

    return write_file


@pytest.fixture
def loaded(etc: Path, write: Write) -> Callable[[str], Config]:
    """The configuration that a text means."""

    def load_text(text: str) -> Config:
        return load(write(text))

    return load_text


@pytest.fixture
def problems(etc: Path, write: Write) -> Callable[[str], list[str]]:
    """What is wrong with a text: ``line: key: message``, in the order of the lines."""

    def load_bad_text(text: str) -> list[str]:
        path = write(text)
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert {problem.file for problem in caught.value.problems} == {str(path)}
        return [
            f"{problem.line}: {problem.key}: {problem.message}" for problem in caught.value.problems
        ]

    return load_bad_text
