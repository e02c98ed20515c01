"""What the parts of the benchmark make of their measurements."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path

import pytest

import vllmwall
from tests import bench
from tests.bench import cost, exposure, packets, poller, reaction, repair, start
from tests.bench.exposure import Listen
from tests.bench.layouts import CHECKOUT, packaged
from tests.bench.packets import Server, Slice
from tests.bench.rows import Goal, Row
from tests.bench.scale import FULL, QUICK
from tests.bench.stage import next_port
from tests.bench.start import Start
from tests.support.building import NEW, built_package
from tests.support.lab import Host

GUARD = Goal("≤", 0)


def by_name(rows: object) -> dict[str, Row]:
    """Rows by their names."""
    return {row.name: row for row in rows}  # type: ignore[attr-defined]


def test_one_accepted_connection_misses_the_guards_goal() -> None:
    """Zero means zero, however many listens it is spread over."""
    closed, leaking = Listen(3000, 2500, 0, 0, True), Listen(3000, 2500, 1, 0.1, True)
    assert by_name(exposure.rows("guard", [closed] * 250, goal=GUARD))["guard: accepted"].met
    leaked = by_name(exposure.rows("guard", [closed] * 249 + [leaking], goal=GUARD))
    assert leaked["guard: accepted"].met is False


def test_exposure_is_told_with_its_attempts_and_beside_a_rival() -> None:
    """So that a zero can be told from a hammer that did not hit."""
    ours, theirs = [Listen(3000, 2500, 10, 2.0, True)], [Listen(9000, 8000, 100, 900.0, True)]
    row = by_name(exposure.rows("reaction", ours, theirs, "a poller"))["reaction: accepted"]
    assert (10, 100, 0.1, "a poller") == (row.value, row.baseline, row.ratio, row.beside)
    assert "10 of 3,000 attempts, 2,500 at the open port, 1 listens" == row.note


def test_a_port_that_nothing_closed_is_pointed_out() -> None:
    """The time it was open is then our patience, not what it would have been."""
    rows = exposure.rows("nothing", [Listen(9, 9, 9, 2500.0, False)])
    assert "1 NEVER CLOSED" in by_name(rows)["nothing: accepted"].note


def reactions(took: list[float], missed: int) -> Iterator[Row]:
    """The rows of the reaction part."""
    return reaction.rows("listen", took, missed, {50: Goal("≤", 0.5), 99: Goal("≤", 5)})


@pytest.mark.parametrize("rows", [reactions, repair.rows])
def test_what_never_happened_spoils_the_percentiles(
    rows: Callable[[list[float], int], Iterator[Row]],
) -> None:
    """A listen without a rule, a flush without a repair: no figure, and the goal is missed."""
    assert [0.4, 30.0, 30.0] == [row.value for row in rows([0.2, 0.4, 30.0], 0)]
    holed = list(rows([0.2, 0.4], 1))
    assert [None] * 3 == [row.value for row in holed]
    assert [False] == list({row.met for row in holed if row.goal})
    assert all("!" in row.note for row in holed)


def test_a_ratio_of_the_packet_path_is_taken_beside_its_neighbours() -> None:
    """A moment in which the machine was busy slows both, and says nothing."""
    small, large = Server("wall, 10 ports", no_rules), Server("wall, 10,000 ports", no_rules)
    measured = {
        small.name: [Slice(99, 100), Slice(9.9, 10), Slice(49.5, 50)],
        large.name: [Slice(90, 100), Slice(9, 10), Slice(45, 50)],
    }
    rows = by_name(packets.rows("connections", "1/s", measured, [small, large]))
    assert pytest.approx(0.99) == rows["connections: wall, 10 ports"].ratio
    assert 49.5 == rows["connections: wall, 10 ports"].value
    assert pytest.approx(10 / 11) == rows["connections, flat: wall, 10,000 ports"].ratio


def no_rules(host: Host) -> None:
    """Of a server that is never set up."""


def test_memory_is_read_in_megabytes() -> None:
    """smaps_rollup counts in units of 1,024 bytes, whatever it calls them."""
    text = "0000-ffff ---p 00000000 00:00 0 [rollup]\nRss:   2000 kB\nAnonymous:  1000 kB\n"
    assert {"Rss": 2.048, "Anonymous": 1.024} == cost.memory(text)


def test_a_start_is_told_in_milliseconds_beside_a_python_that_does_nothing() -> None:
    """The median of the starts, and of all questions of all of them."""
    starts = [
        Start(seconds, 0.3, {"Rss": 30.0, "Anonymous": 20.0}, [0.1, seconds])
        for seconds in (0.5, 0.4, 0.9)
    ]
    rows = by_name(start.rows("package", starts, [0.02, 0.02]))
    assert (500, 20, 25, True) == (
        *(rows["package: ready"].value, rows["package: ready"].baseline),
        *(rows["package: ready"].ratio, rows["package: ready"].met),
    )
    assert (250, False) == (rows["package: status"].value, rows["package: status"].met)
    assert (30, True) == (
        *(rows["package: memory, resident"].value, rows["package: memory, resident"].met),
    )


@pytest.mark.system
@pytest.mark.timeout(600)
def test_the_package_is_laid_out_with_our_code_and_its_own_launcher(tmp_path: Path) -> None:
    """An old package tells of today's code; nothing of the installed one is used."""
    package = built_package("deb", NEW)
    layout = packaged(package, tmp_path)
    command = [*layout.command, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert vllmwall.__version__ in done.stdout
    ours = (tmp_path / "usr/lib/vllmwall/site/vllmwall/daemon/loop.py").read_bytes()
    assert (CHECKOUT / "vllmwall/daemon/loop.py").read_bytes() == ours
    assert list(tmp_path.rglob("loop.cpython-3*.pyc"))


@pytest.mark.parametrize("tool", ["iptables", "ufw", "firewall-cmd"])
def test_a_rival_closes_the_port_to_all_but_the_peer(tool: str) -> None:
    """Every rival gets commands that name both."""
    words = " ".join(word for one in poller.commands(tool, 29500, "192.0.2.2") for word in one)
    assert "29500" in words
    assert "192.0.2.2" in words


def test_every_listen_has_a_port_of_its_own() -> None:
    """No rule of an earlier listen can close it; none is an ephemeral port."""
    ports = [next_port() for _ in range(5000)]
    assert len(ports) == len(set(ports))
    assert all(1024 < port < 32768 for port in ports)


def test_a_quick_run_has_less_of_everything() -> None:
    """Nothing that takes time is left at its full measure."""
    assert all(a < b for a, b in zip(astuple(QUICK)[1:], astuple(FULL)[1:], strict=True))


def test_the_poller_runs_without_us() -> None:
    """A rival that imports the product would measure the product."""
    tree = ast.parse((Path(bench.__file__).parent / "poller.py").read_text())
    modules = {
        name.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for name in node.names
    } | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {"subprocess", "sys", "time", "psutil", "__future__"} == modules
