"""`vllmwall events`: what happened, in order, without a hole that is not told."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.support.answers import Json
from tests.support.guarded import Guarded, eventually, guarded
from tests.support.lab import Lab
from vllmwall.api.events import Event
from vllmwall.linux.wire import Fit, decode


def cli(node: Guarded, *arguments: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "vllmwall",
        "--socket",
        str(node.runtime / "control.sock"),
        *arguments,
    ]


def said(node: Guarded, *arguments: str) -> list[Json]:
    """What `vllmwall events --json` prints, each line in the published shape."""
    done = subprocess.run(
        cli(node, "events", "--json", *arguments), capture_output=True, text=True, check=True
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    for one in events:
        decode(Event, one, Fit.WHOLE)
    return events


def kinds(node: Guarded) -> list[str]:
    return [one["kind"] for one in said(node, "--last", "500")]


@contextlib.contextmanager
def following(node: Guarded) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    process = subprocess.Popen(
        cli(node, "events", "--follow", "--json", "--last", "500"),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    until(process.stdout, "daemon_started")
    try:
        yield process, process.stdout
    finally:
        process.kill()
        process.wait()


def until(lines: IO[str], kind: str) -> list[Json]:
    """The events up to the first of this kind."""
    found: list[Json] = []
    for line in lines:
        found.append(json.loads(line))
        if found[-1]["kind"] == kind:
            return found
    pytest.fail(f"no {kind}, but {found}")


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(lab, tmp_path) as found:
        yield found


def test_the_life_of_a_workload_is_told_from_its_first_port_to_its_end(node: Guarded) -> None:
    """Appeared, walled, gone, ended: each once, in this order, with names."""
    rank = node.rank()
    rank.open("tcp", "::", 29500)
    eventually(lambda: "listener_walled" in kinds(node), "the listener is told", node.log)
    rank.close("tcp", "::", 29500)
    eventually(lambda: "listener_gone" in kinds(node), "that it is gone", node.log)
    rank.kill()
    node.ask("reload")
    life = {"workload_appeared", "listener_walled", "listener_gone", "workload_ended"}
    found = [one for one in said(node) if one["kind"] in life]
    assert ["workload_appeared", "listener_walled", "listener_gone", "workload_ended"] == [
        one["kind"] for one in found
    ]
    assert 1 == len({one["workload"] for one in found})
    assert "[::]:29500" in found[1]["detail"]
    numbers = [one["number"] for one in said(node)]
    assert list(range(numbers[0], numbers[0] + len(numbers))) == numbers


def test_a_listener_for_everyone_is_told_as_opened(node: Guarded) -> None:
    """The API port is open, and nothing calls it walled."""
    server = node.server(8000)
    server.open("tcp", "0.0.0.0", 8000)
    server.open("tcp", "0.0.0.0", 8001)
    wanted = {"listener_opened", "listener_walled"}
    eventually(lambda: wanted <= set(kinds(node)), "both are told", node.log)
    found = {one["kind"]: one["detail"] for one in said(node) if one["kind"] in wanted}
    assert ":8000" in found["listener_opened"]
    assert ":8001" in found["listener_walled"]


def test_an_audited_listener_is_not_called_walled(node: Guarded) -> None:
    """Audit mode drops nothing: whoever reads the events must not think otherwise."""
    node.config.write_text('mode = "audit"\n')
    node.ask("reload")
    node.rank().open("tcp", "::", 29500)
    eventually(lambda: "listener_opened" in kinds(node), "it is open", node.log)
    assert "listener_walled" not in kinds(node)


def test_configuration_peers_and_touches_are_events_too(lab: Lab, tmp_path: Path) -> None:
    """What an operator or another program did to the wall."""
    with guarded(lab, tmp_path, environment={"VLLMWALL_OWNER": "off"}) as node:
        node.ask("peers.add", networks=["198.51.100.7/32"])
        node.configure("nonsense = 1\n")
        with pytest.raises(Exception, match="nonsense"):
            node.ask("reload")
        lab.node.run(["nft", "flush ruleset"])
        eventually(lambda: "wall_repaired" in kinds(node), "the repair is told", node.log)
        found = {one["kind"]: one for one in said(node)}
        assert "198.51.100.7/32" in found["peers_changed"]["detail"]
        assert "nonsense" in found["config_invalid"]["detail"]
        assert "error" == found["config_invalid"]["level"]
        assert "nft" in found["table_modified"]["detail"]


def test_follow_prints_as_it_happens_and_ends_well_on_ctrl_c(node: Guarded) -> None:
    """One JSON object a line, flushed at once."""
    with following(node) as (process, lines):
        node.ask("peers.add", networks=["198.51.100.7/32"])
        assert "198.51.100.7/32" in until(lines, "peers_changed")[-1]["detail"]
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(timeout=10)


def test_follow_says_that_the_daemon_went_and_goes_on_with_the_next(node: Guarded) -> None:
    """A restart is no end of the story, and no event of the new daemon is passed over."""
    with following(node) as (_, lines):
        node.stop(signal.SIGKILL)
        until(lines, "daemon_gone")
        node.start()
        found = until(lines, "daemon_started")
        assert "daemon_back" in [one["kind"] for one in found]
        assert 1 == found[-1]["number"]


def test_a_gap_is_said(node: Guarded) -> None:
    """The ring is bounded: who comes late hears how much was given up."""
    with following(node) as (_, lines):
        node.stop()
        for begin in (20000, 21000, 22000):
            rank = node.rank()
            for port in range(begin, begin + 700):
                rank.open("tcp", "::", port)
        node.start()  # its first pass tells of more than the ring holds
        gap = until(lines, "gap")[-1]
        first = until(lines, "listener_walled")[-1]
        assert f"{first['number'] - 1} events dropped" in gap["detail"]


def test_without_a_daemon_it_says_so(node: Guarded) -> None:
    """Not a stack trace, and the status that means it."""
    node.stop()
    done = subprocess.run(cli(node, "events"), capture_output=True, text=True, check=False)
    assert (3, "") == (done.returncode, done.stdout)
    assert "no daemon answers" in done.stderr
