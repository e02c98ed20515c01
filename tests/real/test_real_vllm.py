"""A real vLLM, split over two hosts, that came up behind the wall."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.guarded import Guarded
from tests.support.lab import Host, Lab
from tests.workloads.listening import Listening, completion, listeners_of, try_all
from tests.workloads.starting import API_PORT, SERVING, TINY_MODEL, start_vllm

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]
PATIENCE = 400.0  # seconds; about 50 on two free cores
GLOO_OF_ONE_WORKER = 13  # vLLM 0.32 for the CPU


@pytest.fixture(scope="module", autouse=True)
def serving(lab: Lab, folder: Path, wall: Guarded) -> None:
    """vLLM serves; the wall stood before its first process started."""
    assert wall.ask("status")["safe"] is True
    head = start_vllm(lab.node, 0, folder, master=lab.node.ipv4)
    start_vllm(lab.peer, 1, folder, master=lab.node.ipv4)
    head.wait_for(SERVING, PATIENCE)


@pytest.fixture(scope="module")
def internal(lab: Lab) -> list[Listening]:
    """Whatever listens on the node, for other hosts too, and is not the API."""
    found = [one for one in listeners_of(lab.node) if one.targets(lab.node)]
    assert API_PORT in {one.port for one in found}
    assert len(found) > GLOO_OF_ONE_WORKER
    return [one for one in found if one.port != API_PORT]


def others_than(
    outcome: str, who: Host, lab: Lab, listeners: list[Listening]
) -> dict[Listening, set[str]]:
    """The listeners from which this host gets something else."""
    got = try_all(who, lab.node, listeners)
    assert set(listeners) == set(got)
    return {one: outcomes for one, outcomes in got.items() if outcomes != {outcome}}


def test_a_stranger_gets_a_completion_from_the_api(lab: Lab) -> None:
    """The one port that is for everybody, served by both hosts together."""
    answer = completion(lab.stranger, lab.node.ipv4, API_PORT, str(TINY_MODEL), timeout=180)
    assert isinstance(answer, str)


def test_a_stranger_gets_nothing_from_any_other_listener(
    lab: Lab, wall: Guarded, internal: list[Listening]
) -> None:
    """TCPStore, gloo and ZMQ, on ports that nobody chose, over IPv4 and IPv6."""
    wall.wait_until_guarded(internal)
    assert {} == others_than("timeout", lab.stranger, lab, internal)


def test_a_peer_reaches_every_listener(lab: Lab, wall: Guarded, internal: list[Listening]) -> None:
    """Else vLLM could not span hosts."""
    wall.wait_until_guarded(internal)
    assert {} == others_than("open", lab.peer, lab, internal)


def test_only_the_wall_keeps_the_stranger_out(
    lab: Lab, wall: Guarded, internal: list[Listening]
) -> None:
    """Without it all is open: the tests above measure the wall and nothing else."""
    wall.command("down")
    try:
        assert {} == others_than("open", lab.stranger, lab, internal)
    finally:
        wall.command("up")
    wall.wait_until_guarded(internal)
    assert {} == others_than("timeout", lab.stranger, lab, internal)


def test_roles_of_a_real_vllm(wall: Guarded, internal: list[Listening]) -> None:
    """One API; TCPStore, gloo and ZMQ told apart; nothing left unexplained."""
    wall.wait_until_guarded(internal)
    roles = {one["port"]: one["role"] for one in wall.listeners() if one["proto"] == "tcp"}
    assert "api" == roles.pop(API_PORT)
    assert "tcpstore" == roles[29501]
    assert {"tcpstore", "gloo", "zmq"} == {roles[one.port] for one in internal}
