"""Status never lies: what was not read back is unknown, and unknown is never safe."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from tests.support.answers import status_json
from tests.support.nodes import POLICY, RECORDINGS, facts, with_active
from vllmwall.api.status import is_safe, verdict
from vllmwall.engine.facts import ConfigFacts, ConfigProblem, Reservation
from vllmwall.engine.status_facts import StatusFacts
from vllmwall.model import (
    Label,
    LabelledListener,
    Listener,
    Mode,
    Proto,
    Recognition,
    Role,
    WorkloadId,
)
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
        "Safe: no workload runs here, and nothing listens; the wall is ready",
    )


def test_a_node_whose_listeners_belong_to_no_workload_does_not_say_that_nothing_listens() -> None:
    """sshd listens nearly everywhere."""
    sshd = Listener(1, Proto.TCP, 22, IPv4Address("0.0.0.0"))
    found = facts(recognition=Recognition((), (sshd,)))
    assert verdict(found) == "Safe: no workload runs here; the wall is ready"


def test_a_node_with_gpu_processes_that_are_not_known_does_not_say_that_no_workload_runs() -> None:
    """Nobody can know that."""
    unknown = Reservation("gpu-processes-not-known", "host", "1 GPU process is not known", "Ask.")
    found = facts(recognition=Recognition((), ()), reservations=(unknown,))
    assert is_safe(found) is None
    assert verdict(found) == (
        "Unknown: packets may get past the walls: gpu processes not known. "
        "no workload is known here; the wall is ready"
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


def web_facts(**changes: object) -> StatusFacts:
    """A node on which two workloads listen as web servers do, on one port."""
    whole = facts()
    (workload,) = whole.recognition.workloads
    label = Label(Role.WEB, 0.6)
    other = replace(workload, id=WorkloadId(9, 9), name="other job")
    spaces = (
        Listener(1, Proto.TCP, 8080, IPv4Address("0.0.0.0"), pids=(11, 12)),
        Listener(2, Proto.TCP, 8080, IPv4Address("0.0.0.0"), pids=(21,)),
    )
    both = tuple(
        replace(each, listeners=(LabelledListener(listener, label),))
        for each, listener in zip((workload, other), spaces, strict=True)
    )
    found = replace(whole, recognition=Recognition(both, ()), programs={11: "python3"})
    return replace(found, **changes)  # type: ignore[arg-type]


def test_a_web_server_that_is_not_proven_is_named_with_the_command_that_opens_it() -> None:
    """First of all problems; with the workload where the port alone does not say which."""
    found = web_facts(problems=("something else",))
    first, second, other = status_json(found)["problems"]
    name = found.recognition.workloads[0].name
    assert first == (
        f"port 8080: python3 (pid 11) of {name} looks like a web server and is not proven to be an "
        "API. Only peers may connect, and clients may be waiting. To open it: "
        f"vllmwall api add 8080 --workload {name} --save"
    )
    assert second.startswith("port 8080: other job looks like")
    assert second.endswith("vllmwall api add 8080 --workload 'other job' --save")
    assert other == "something else"
    workloads = status_json(found)["workloads"]
    reasons = [one["reason"] for each in workloads for one in each["listeners"]]
    assert reasons == ["looks like a web server and is not proven to be an API"] * 2


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": replace(POLICY, audiences={**POLICY.audiences, Role.WEB: ("peers",)})},
        {"down": True},
    ],
)
def test_it_is_not_named_where_the_operator_has_decided(changes: dict[str, object]) -> None:
    """By policy, or by taking the walls down."""
    assert status_json(web_facts(**changes))["problems"] == []


def test_many_of_them_do_not_fill_the_screen() -> None:
    """Eight lines, and one that counts the others."""
    found = web_facts()
    one = found.recognition.workloads[0]
    many = tuple(
        replace(one.listeners[0], listener=replace(one.listeners[0].listener, port=8000 + number))
        for number in range(20)
    )
    problems = status_json(
        replace(found, recognition=Recognition((replace(one, listeners=many),), ()))
    )["problems"]
    assert 9 == len(problems)
    assert problems[-1].startswith("12 more such ports")
