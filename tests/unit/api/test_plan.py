"""The plan: the difference between two walls, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import cast

from tests.support.answers import Json, as_json
from tests.support.nodes import facts
from vllmwall.api.plan import plan_of
from vllmwall.engine.status_facts import NamespaceFacts
from vllmwall.model import Limits, Proto

SPACE = facts().namespaces[0]


def planned(**changes: object) -> Json:
    [found] = as_json(plan_of([replace(SPACE, **changes)]))["namespaces"]  # type: ignore[arg-type]
    return cast("Json", found)


def test_what_stands_as_wanted_needs_nothing() -> None:
    """No change, no noise."""
    assert plan_of([SPACE]).changes is False
    assert ("none", [], []) == (planned()["action"], planned()["entries"], planned()["networks"])


def test_a_wall_that_is_not_there_is_created_whole() -> None:
    """Before `up`."""
    found = planned(active=None)
    entries = found["entries"]
    assert isinstance(entries, list)
    assert ("create", "down") == (found["action"], found["was_mode"])
    assert SPACE.wanted is not None
    assert len(SPACE.wanted.entries) == len(entries)
    assert {"add"} == {one["change"] for one in entries}


def test_a_changed_audience_is_one_change_and_not_two() -> None:
    """Old and new side by side."""
    assert SPACE.wanted is not None
    entry = min(SPACE.wanted.entries, key=lambda one: one.port)
    other = replace(entry, audience=("node",))
    active = replace(SPACE.wanted, entries=SPACE.wanted.entries - {entry} | {other})
    [change] = planned(active=active)["entries"]
    assert ("change", ["node"], list(entry.audience)) == (
        change["change"],
        change["was"],
        change["audience"],
    )


def test_networks_that_come_and_go_are_named() -> None:
    """A changed peer list."""
    assert SPACE.wanted is not None
    active = replace(SPACE.wanted, networks={"peers": (ip_network("10.9.0.0/16"),)})
    assert [{"audience": "peers", "add": ["10.0.0.0/24"], "remove": ["10.9.0.0/16"]}] == planned(
        active=active
    )["networks"]


def test_orders_that_change_are_said_once() -> None:
    """Lockdown and limits are not one change for each port, and bans are named."""
    assert SPACE.wanted is not None
    limited = frozenset(
        replace(one, limited=one.audience == ("public",)) for one in SPACE.wanted.entries
    )
    wanted = replace(
        SPACE.wanted,
        entries=limited,
        lockdown=True,
        opened=frozenset({(Proto.UDP, 53), (Proto.TCP, 80)}),
        limits=Limits(20, 40, 100),
        banned=(ip_network("203.0.113.0/24"),),
    )
    found = planned(wanted=wanted)
    assert (found["action"], found["entries"]) == ("change", [])
    assert found["orders"] == [
        "lockdown off → on",
        "open off → tcp/80 udp/53",
        "limits off → 20 a second, 100 at a time",
    ]
    assert found["networks"] == [{"audience": "banned", "add": ["203.0.113.0/24"], "remove": []}]


def test_a_wall_that_nothing_wants_is_removed() -> None:
    """The wall of before is named entry by entry."""
    found = planned(wanted=None)
    assert "remove" == found["action"]
    assert {"remove"} == {one["change"] for one in found["entries"]}


def test_a_namespace_that_cannot_be_read_is_a_problem_and_no_plan() -> None:
    """Nothing is promised about what was not read."""
    broken = NamespaceFacts(7, "net:7", None, None, "is gone")
    found = plan_of([broken], ["the walls are down"])
    assert ((), ("the walls are down", "net:7: is gone")) == (found.namespaces, found.problems)
