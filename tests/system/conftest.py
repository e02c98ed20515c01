"""Tests of what systemd makes of us, in a box with a real one. Needs root and systemd-nspawn."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import Lab
from tests.system import debian
from tests.system.box import Box, box
from tests.system.containers import PUBLISHED, ContainerNode
from tests.system.installed import Node, installed

_HERE = Path(__file__).parent
_ALL = os.environ.get("SUITES") == "all"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A whole life on one suite; on the others what differs there, or all with ``SUITES=all``."""
    if "suite" in metafunc.fixturenames:
        everywhere = metafunc.definition.get_closest_marker("every_suite") is not None
        suites = debian.SUITES if everywhere or _ALL else debian.SUITES[:1]
        metafunc.parametrize("suite", suites, scope="module")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, and skip it where it cannot run."""
    reason = _why_not()
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.kernel)
            item.add_marker(pytest.mark.system)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A run that booted nothing must not look whole: say it apart, and why."""
    reasons: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        if "tests/system/" in report.nodeid and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            reasons[reason] = reasons.get(reason, 0) + 1
    if reasons:
        terminalreporter.section("NOT TESTED ON A REAL SYSTEM", sep="!", red=True, bold=True)
        for reason, count in reasons.items():
            terminalreporter.line(f"{count} tests: {reason}", red=True)


def _why_not() -> str:
    if os.geteuid() != 0:
        return "needs root: boots a container"
    if shutil.which("systemd-nspawn") is None:
        return "needs systemd-nspawn (apt-get install systemd-container)"
    return ""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A network whose stranger has a cable to the box."""
    with Lab() as made:
        yield made


@pytest.fixture
def host(lab: Lab, tmp_path: Path) -> Iterator[Box]:
    """A host with a systemd of its own, not booted yet."""
    with box(tmp_path, lab.stranger) as made:
        yield made


@pytest.fixture(scope="module")
def node(suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A booted Debian with the package of before on it, shared by the tests of a module."""
    with installed(suite, tmp_path_factory.mktemp(suite)) as made:
        yield made


@pytest.fixture
def no_container_stays(node: ContainerNode) -> Iterator[None]:
    """Each test has its own containers."""
    yield
    node.remove_all()


@pytest.fixture
def published(node: ContainerNode) -> None:
    """A container that serves on the bridge, both its ports published."""
    node.serve("published", *PUBLISHED)
