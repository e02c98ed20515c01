"""Fixtures for tests that run real torch and real vLLM. They need root and `make test-real`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.support.guarded import Guarded, running
from tests.support.lab import Lab
from tests.workloads.starting import NCCL, TINY_MODEL, TORCH, VLLM

_HERE = Path(__file__).parent
_TORCH = (TORCH / "torchrun",)
_VLLM = (VLLM / "vllm", TINY_MODEL / "config.json")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, and skip it where it cannot run."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.real)
            needed = _VLLM if item.get_closest_marker("vllm") else _TORCH
            needed = (NCCL,) if item.get_closest_marker("nccl") else needed
            if reason := _why_not(needed):
                item.add_marker(pytest.mark.skip(reason=reason))


def _why_not(needed: Iterable[Path]) -> str:
    if os.geteuid() != 0:
        return "needs root: builds network namespaces"
    missing = [path.name for path in needed if not path.exists()]
    return f"run `make test-real`, which sets up {', '.join(missing)}" if missing else ""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A network of a node, a peer and a stranger, shared by the tests of one file."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the workloads of one file write their output."""
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def wall(lab: Lab, folder: Path) -> Guarded:
    """A daemon that guards the node, with the peer as its only peer."""
    return running(lab, folder / "wall")
