"""Programs that hand a stranger's bytes to a workload's port over lo."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenario.test_namespaces_guarded import also
from tests.support.guarded import Guarded, guarded
from tests.support.lab import Host, Lab
from tests.support.mesh import sidecar
from tests.support.relaying import relay

OUTER, INNER = 39601, 29601


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(lab, tmp_path) as found:
        yield found


def got(node: Guarded, port: int = OUTER) -> tuple[str, str]:
    """What a stranger gets and what a peer gets."""
    hosts = node.lab.stranger, node.lab.peer
    first, second = (host.connect(node.lab.node.ipv4, port) for host in hosts)
    return first, second


def looked(node: Guarded, host: Host, port: int = OUTER) -> None:
    """Let the daemon look while this host has sent something."""
    with host.dial(node.lab.node.ipv4, port) as made:
        made.sendall(b"some words")
        for _ in range(2):
            node.ask("reload")


def test_a_relay_s_port_is_for_those_behind_it(node: Guarded) -> None:
    """From the first look at a connection on, and as long as both listeners exist."""
    job = node.rank()
    job.open("tcp", "127.0.0.1", INNER)
    job.open("tcp", "0.0.0.0", 29500)
    node.wait_for_rules(2)
    relay(node.lab.node, OUTER, INNER)
    assert ("open", "open") == got(node)
    looked(node, node.lab.stranger)
    assert ("timeout", "open") == got(node)
    assert "relays it to tcp 127.0.0.1:29601" in str(node.ask("status"))
    node.ask("reload")
    assert ("timeout", "open") == got(node)
    job.close("tcp", "127.0.0.1", INNER)
    node.ask("reload")
    assert ("open", "open") == got(node)


def test_a_server_that_asks_a_workload_itself_stays_open(node: Guarded) -> None:
    """A proxy that writes something of its own, a scraper: the operator's, not a hole."""
    node.rank().open("tcp", "127.0.0.1", INNER)
    node.wait_for_rules(1)
    relay(node.lab.node, OUTER, INNER, written="X-Forwarded-For: somebody\n")
    looked(node, node.lab.peer)
    assert ("open", "open") == got(node)


def test_a_user_closes_no_relay_of_another_one(
    node: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a listener at the port that it leads to, which looks like a job's."""
    node.rank().open("tcp", "127.0.0.1", INNER)
    node.wait_for_rules(1)
    monkeypatch.setenv("RUN_AS", "1234")
    relay(node.lab.node, OUTER, INNER)
    looked(node, node.lab.peer)
    assert ("open", "open") == got(node)


def test_an_api_behind_a_relay_is_left_to_the_relay(node: Guarded) -> None:
    """A TLS terminator in front of an API on loopback."""
    server = node.server(8000)
    server.open("tcp", "127.0.0.1", 8000)
    node.wait_for_rules(1)
    relay(node.lab.node, OUTER, 8000)
    looked(node, node.lab.peer)
    assert ("open", "open") == got(node)


def test_a_sidecar_is_no_relay(node: Guarded) -> None:
    """What NAT redirects to it is judged by its first port, so the API behind it stays open."""
    node.rank().open("tcp", "0.0.0.0", 29500)
    node.server(8000).open("tcp", "0.0.0.0", 8000)
    node.wait_for_rules(2)
    sidecar(node.lab.node)
    looked(node, node.lab.peer, 29500)
    assert ("timeout", "open") == got(node, 29500)
    assert ("open", "open") == got(node, 8000)


def test_a_proxy_that_moved_into_the_container_is_known_at_once(lab: Lab, tmp_path: Path) -> None:
    """Without a connection: by where it lives and where it listens."""
    elsewhere = copy.copy(lab)
    elsewhere.node = lab.host("box", "198.51.100.7")
    box = Guarded(elsewhere, tmp_path / "box")
    with guarded(lab, tmp_path / "node", arguments=also(box)) as node:
        box.rank().open("tcp", "0.0.0.0", 29500)
        relay(lab.node, 29500, 29500, inside=elsewhere.node.path)
        node.ask("reload")
        node.wait_for_rules(2)
        assert ("timeout", "open") == got(node, 29500)
