"""`[[program]]`: a program that the operator taught us, by packets."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guarded import PEERS, RANK, Guarded, Program
from tests.support.lab import Lab
from tests.support.lying import USER
from vllmwall.engine.event_keys import EventKey

API, INNER, STORE = 9000, 9001, 29500
SECOND = "192.0.2.17"
ROW = """
[[program]]
part = "own"
programs = ["own-web"]
ports = [{ role = "api", ports = [9000, 29500] }]
rest = "kv-transfer"
"""


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    """A daemon that knows the row."""
    lab.node.add_address(SECOND)
    found = Guarded(lab, tmp_path / "node")
    found.configure(PEERS + ROW)
    found.start()
    yield found
    if found.process is not None and found.process.poll() is None:
        found.stop()


def own(node: Guarded, user: int = 0) -> Program:
    """A program with the name of the row."""
    script = node.folder / "own-web"
    script.write_text(f"#!{sys.executable}\n{RANK}")
    script.chmod(0o755)
    return node._program([str(script)], {**os.environ, "RUN_AS": str(user)})


def from_stranger(node: Guarded, port: int, address: str = "") -> str:
    return node.lab.stranger.connect(address or node.lab.node.ipv4, port)


def test_a_row_opens_its_api_and_closes_the_rest(node: Guarded) -> None:
    """And `status --why` names the file and the line; removed by reload, all is as before."""
    program = own(node)
    program.open("tcp", "0.0.0.0", API)
    program.open("tcp", "0.0.0.0", INNER)
    node.wait_for_rules(2)
    node.settled()
    assert (from_stranger(node, API), from_stranger(node, INNER)) == ("open", "timeout")
    assert node.lab.peer.connect(node.lab.node.ipv4, INNER) == "open"
    assert f"custom own (by {node.config}:" in node.command("status", "--why").stdout
    node.configure(PEERS)
    node.ask("reload")
    assert from_stranger(node, INNER) == "open"
    node.configure(PEERS + ROW)
    node.ask("reload")
    assert (from_stranger(node, API), from_stranger(node, INNER)) == ("open", "timeout")


def test_a_bad_row_keeps_the_last_good_configuration(node: Guarded) -> None:
    """The reload is refused with the place of the fault, and the old rules stay active."""
    own(node).open("tcp", "0.0.0.0", INNER)
    node.wait_for_rule(INNER)
    node.configure(PEERS + ROW.replace("kv-transfer", "kv"))
    refused = node.command("reload")
    checked = node.command("check", str(node.config))
    words = f'{node.config}:10: program[0].rest: "kv" is not a role of a port'
    for answer in (refused, checked):
        assert answer.returncode != 0
        assert words in answer.stdout + answer.stderr
    assert from_stranger(node, INNER) == "timeout"
    assert len(node.logged(EventKey.CONFIG_INVALID)) == 1


def test_a_liar_with_the_name_of_a_row_opens_no_port_of_others(node: Guarded) -> None:
    """Another user runs a program of that name on the port number of a job's store."""
    rank = node.rank()
    rank.open("tcp", "192.0.2.1", STORE)
    rank.open("tcp", "192.0.2.1", INNER)
    node.wait_for_rules(2)
    liar = own(node, USER)
    liar.open("tcp", SECOND, STORE)
    liar.open("tcp", SECOND, INNER)
    node.wait_for_rules(4)
    node.settled()
    assert from_stranger(node, STORE, SECOND) == "open"  # as it would be without vllmwall
    assert from_stranger(node, INNER, SECOND) == "timeout"
    assert from_stranger(node, STORE) == "timeout"
    assert from_stranger(node, INNER) == "timeout"


def test_a_row_that_is_bound_to_a_unit_believes_no_name(node: Guarded) -> None:
    """A program of that name elsewhere is no workload: nothing about it changes."""
    node.configure(PEERS + ROW + 'match = { unit = "own.service" }\n')
    node.ask("reload")
    program = own(node, USER)
    program.open("tcp", "0.0.0.0", INNER)
    other = node.rank()
    other.open("tcp", "0.0.0.0", STORE)
    node.wait_for_rule(STORE)
    node.settled()
    assert INNER not in {one["port"] for one in node.listeners()}
    assert from_stranger(node, INNER) == "open"
