"""Snapshots of a part of a real node: enough for `recognize`, and nothing else of the node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guarded import Guarded, guarded
from tests.support.lab import Lab

API, STORE, OTHER = 8000, 29500, 9000


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    """A node with two workloads and a program that is none."""
    with guarded(lab, tmp_path / "node") as found:
        found.server(API).open("tcp", "0.0.0.0", API)
        found.rank().open("tcp", "0.0.0.0", STORE)
        found.bystander().open("tcp", "0.0.0.0", OTHER)
        found.wait_for_rules(2)
        found.ask("reload")  # reads the node
        yield found


def taken(node: Guarded, *arguments: str) -> dict[str, list[dict[str, object]]]:
    """The snapshot that a command prints."""
    done = node.command("snapshot", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def ports(found: dict[str, list[dict[str, object]]]) -> set[object]:
    """The ports in it; 0 stands for the longest queue."""
    return {one["port"] for one in found["listeners"] if one["proto"] != "unix"} - {0}


def test_one_workload(node: Guarded, tmp_path: Path) -> None:
    """By its name, or by a pid of it."""
    workloads = {one["name"]: one for one in node.ask("status")["workloads"]}  # type: ignore[attr-defined]
    pid = workloads["tiny"]["root_pid"]
    file = tmp_path / "snapshot.json"
    for name in ("tiny", str(pid)):
        found = taken(node, "--workload", name)
        assert ports(found) == {API}
        assert {one["pid"] for one in found["processes"]} == {pid}
        file.write_text(json.dumps(found))
        [again] = json.loads(node.command("recognize", str(file), "--json").stdout)["workloads"]
        roles = [(one["port"], one["role"]) for one in again["listeners"]]
        assert (again["name"], roles) == ("tiny", [(API, "api")])


def test_a_process_that_is_no_workload(node: Guarded) -> None:
    """As the line about GPU processes that are not known says."""
    found = taken(node)
    [pid] = next(one["pids"] for one in found["listeners"] if one["port"] == OTHER)  # type: ignore[misc]
    assert ports(taken(node, "--workload", str(pid))) == {OTHER}


def test_one_namespace(node: Guarded) -> None:
    """By the name that status shows."""
    name = node.ask("status")["namespaces"][0]["name"]  # type: ignore[index]
    found = taken(node, "--namespace", name)
    assert ports(found) == {API, STORE, OTHER}
    assert len({one["namespace"] for one in found["processes"]}) == 1
    assert len(found["processes"]) < len(taken(node)["processes"])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--workload", "huge"], 1, "no workload or process huge here"),
        (["--namespace", "nowhere"], 1, "no network namespace nowhere here"),
        (["--workload", "tiny", "--namespace", "x"], 2, "cannot be combined"),
    ],
)
def test_what_is_not_there_is_refused(
    node: Guarded, arguments: list[str], code: int, words: str
) -> None:
    """With what there is."""
    done = node.command("snapshot", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
