"""Fixtures and marks that all tests share."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import sharing
from tests.support.lab import Lab
from tests.support.skips import unlisted
from vllmwall.enforce.nftables.backend import Nftables

_HERE = Path(__file__).parent
_NEED_ROOT = {_HERE / "kernel", _HERE / "scenario"}
_SLOWEST_FIRST = ("system", "real", "scenario", "kernel", "qemu", "unit")
# On a busy machine one example can take long, so there is no deadline.
_SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", max_examples=25, **_SLOW)
settings.register_profile("nightly", max_examples=500, **_SLOW)
settings.load_profile("ci")  # pytest --hypothesis-profile=nightly takes the other


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option with which CI accepts no skip but those of tests/allowed_skips.txt."""
    parser.addoption("--listed-skips-only", action="store_true", help="fail for any other skip")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark tests that need root, before marks select; skip them where there is none."""
    if _NEED_ROOT & set(item.path.parents):
        item.add_marker(pytest.mark.kernel)
        if _HERE / "scenario" in item.path.parents:
            item.add_marker(pytest.mark.scenario)
        if os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root: builds network namespaces"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the selected tests: workers take files in this order, so the slow ones come first."""
    tests_in = Counter(item.path for item in items)
    folder = {item.path: item.path.relative_to(_HERE).parts[0] for item in items}
    slowest = {path: _SLOWEST_FIRST.index(folder[path]) for path in folder}
    items.sort(key=lambda item: (slowest[item.path], -tests_in[item.path], item.path))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail for skips that are not listed, where that is asked for."""
    if session.exitstatus == pytest.ExitCode.OK and _unlisted_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name the skips that are not listed."""
    if found := _unlisted_skips(config):
        terminalreporter.section("SKIPPED, AND NOT IN tests/allowed_skips.txt", red=True)
        for line, count in found.items():
            terminalreporter.line(f"{count} tests: {line}", red=True)


def _unlisted_skips(config: pytest.Config) -> Counter[str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not config.getoption("--listed-skips-only"):  # a worker has none
        return Counter()
    return unlisted(reporter.stats.get("skipped", []))


@pytest.fixture(scope="session", autouse=True)
def tracefs() -> Iterator[None]:
    """Mounted while any test process of this machine runs; removed by the last if it was ours."""
    with sharing.tracefs() if os.geteuid() == 0 else nullcontext():
        yield


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A network of a node, a peer and a stranger, new for this test."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[Lab]:
    """A network that the tests of one file share: they take away what they put up."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def backend() -> Nftables:
    """The backend under test; it keeps no state that tests could share by mistake.

    But it keeps namespaces, two descriptors each: so no longer than for the tests of a file.
    """
    return Nftables()
