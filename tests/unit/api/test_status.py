"""Status never lies: what was not read back is unknown, and unknown is never safe."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.answers import status_json
from tests.support.nodes import POLICY, RECORDINGS, facts, with_active
from vllmwall.api.status import is_safe, verdict
from vllmwall.engine.facts import ConfigFacts, ConfigProblem, Reservation
from vllmwall.model import Mode, Recognition
from vllmwall.networks.sources import PeerSource


def test_a_node_whose_walls_stand_is_safe() -> None:
    """The first line counts what is open and to whom."""
    found = facts()
    assert is_safe(found) is True
    assert verdict(found) == (
        "Safe: 1 workload, 14 listeners; 1 open to the public (api tcp 0.0.0.0:8000); "
        "13 to 1 peer network"
    )


def test_a_node_without_a_workload_is_safe_and_says_so() -> None:
    """Nothing to guard is not the same as not guarding."""
    found = facts(recognition=Recognition((), ()))
    assert (is_safe(found), verdict(found)) == (
        True,
        "Safe: no workload runs here; the wall is ready",
    )


def test_a_missing_wall_is_not_safe() -> None:
    """Somebody deleted our table."""
    found = with_active(facts(), None)
    assert is_safe(found) is False
    assert verdict(found).startswith("NOT safe")
    assert {"missing"} == {one["wall"] for one in status_json(found)["namespaces"]}


def test_a_wall_without_one_of_its_entries_is_not_safe_and_the_listener_says_missing() -> None:
    """Somebody deleted one element."""
    whole = facts()
    wall = whole.namespaces[0].active
    assert wall is not None
    gone = next(entry for entry in wall.entries if entry.audience == ("peers",))
    found = with_active(whole, replace(wall, entries=wall.entries - {gone}))
    [workload] = status_json(found)["workloads"]
    rules = {one["port"]: one["rule"] for one in workload["listeners"] if one["proto"] == "tcp"}
    assert is_safe(found) is False
    assert "missing" == rules[gone.port]
    assert 1 == list(rules.values()).count("missing")


def test_a_wall_that_could_not_be_read_is_unknown() -> None:
    """Not safe, not unsafe: unknown, with the reason among the problems."""
    whole = facts()
    spaces = tuple(replace(one, error="no such namespace") for one in whole.namespaces)
    found = replace(whole, namespaces=spaces)
    answer = status_json(found)
    assert answer["safe"] is None
    assert answer["verdict"].startswith("Unknown")
    assert any("no such namespace" in problem for problem in answer["problems"])
    assert {"unknown"} == {
        one["rule"]
        for workload in answer["workloads"]
        for one in workload["listeners"]
        if one["proto"] == "tcp"
    }


def test_no_namespace_at_all_is_unknown() -> None:
    """Before the first pass nothing is known."""
    assert is_safe(facts(namespaces=())) is None


def test_audit_mode_is_not_safe() -> None:
    """It drops nothing, however well its table stands."""
    found = facts(policy=replace(POLICY, mode=Mode.AUDIT))
    assert is_safe(found) is False
    assert "audit mode drops nothing" in verdict(found)


def test_down_is_not_safe_and_no_rule_is_claimed_to_stand() -> None:
    """After `vllmwall down`."""
    answer = status_json(facts(down=True))
    assert (answer["mode"], answer["safe"]) == ("down", False)
    assert {"none"} == {one["rule"] for one in answer["workloads"][0]["listeners"]}


def test_no_peers_is_said_in_plain_words() -> None:
    """The default after installation: closed to every other host."""
    assert "no peers are configured" in verdict(facts(peers=()))


def test_problems_of_peers_and_configuration_are_shown() -> None:
    """A DNS name that fails, a file that does not load."""
    answer = status_json(
        facts(
            sources=(PeerSource("gpu.internal", "dns", (), "no such name"),),
            config=ConfigFacts(("a.toml",), 1.0, (ConfigProblem("a.toml", "mode", "bad", 3),)),
        )
    )
    assert any("gpu.internal: no such name" in problem for problem in answer["problems"])
    assert [{"file": "a.toml", "key": "mode", "line": 3, "message": "bad"}] == answer["config"][
        "error"
    ]


RESERVED = Reservation("filtered-elsewhere", "pod-1", "not guarded", "Use another mode.")


def test_a_reservation_is_not_safe_and_names_its_remedy() -> None:
    """However well every wall stands."""
    found = facts(reservations=(RESERVED,))
    answer = status_json(found)
    assert answer["safe"] is None
    assert answer["verdict"].startswith(
        "Unknown: packets may get past the walls: filtered elsewhere. 1 w"
    )
    assert [
        {
            "kind": "filtered-elsewhere",
            "where": "pod-1",
            "what": "not guarded",
            "remedy": "Use another mode.",
        }
    ] == answer["reservations"]
    assert "pod-1: not guarded. Use another mode." == RESERVED.line


def test_a_reservation_hides_nothing_worse() -> None:
    """A wall that is missing is known to be unsafe."""
    found = with_active(facts(reservations=(RESERVED,)), None)
    assert is_safe(found) is False
    assert verdict(found).startswith("NOT safe")


@pytest.mark.parametrize("path", sorted(RECORDINGS.glob("*.json")), ids=lambda path: path.stem)
def test_every_recorded_node_has_a_status(path: object) -> None:
    """Every listener of every recording has a rule or a reason for having none."""
    from pathlib import Path

    assert isinstance(path, Path)
    answer = status_json(facts(path.stem))
    for workload in answer["workloads"]:
        for one in workload["listeners"]:
            if one["rule"] != "active":
                assert one["reason"], one
