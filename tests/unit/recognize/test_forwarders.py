"""Ports that rootless Podman publishes: sockets of the host that lead into a container."""

from __future__ import annotations

import pytest

from tests.unit.recognize.node_builder import process, tcp
from vllmwall.model import Node, Process, Role
from vllmwall.recognize import recognize
from vllmwall.recognize.definitions import Match, WorkloadDefinition

INSIDE = 4026532821
PORT = "/usr/lib/podman/rootlessport"


def published(*ports: int, exe: str = PORT, inner: tuple[int, ...] = (8000, 29500)) -> Node:
    """Those of the host, and vLLM behind them."""
    server = process(900, "/usr/bin/python3 /usr/local/bin/vllm serve tiny", namespace=INSIDE)
    forwarder = process(450, "rootlessport", exe=exe, namespace=INSIDE)
    child = process(456, "rootlessport-child", 450, exe=exe, namespace=INSIDE)
    behind = [
        tcp(port, "0.0.0.0", 900, namespace=INSIDE, backlog=2048 if port == 8000 else 128)
        for port in inner
    ]
    before = [tcp(port, "::", 450) for port in ports]
    processes: dict[int, Process] = {one.pid: one for one in (server, forwarder, child)}
    return Node(processes, (*behind, *before), ())


def roles(node: Node, *definitions: WorkloadDefinition) -> dict[int, Role]:
    """Of the sockets of the host that are a workload's."""
    (workload,) = recognize(node, definitions).workloads
    return {
        one.listener.port: one.label.role
        for one in workload.listeners
        if one.listener.namespace != INSIDE
    }


def test_a_published_port_is_what_it_leads_to() -> None:
    """The wall inside lets it in, since it comes over lo there: so the host's must not."""
    assert {8000: Role.API, 29500: Role.ZMQ} == roles(published(8000, 29500))
    assert () == recognize(published(8000, 29500)).unclaimed


@pytest.mark.parametrize(
    ("ports", "role"),
    [((8080,), Role.API), ((8080, 29500), Role.API), ((8080, 39500), Role.UNKNOWN)],
)
def test_an_api_at_another_number_is_one_where_nothing_else_can_be(
    ports: tuple[int, ...], role: Role
) -> None:
    """Where two are left, either could be what is internal."""
    assert role is roles(published(*ports))[8080]


def test_before_the_api_listens_nothing_is_one() -> None:
    """What a port leads to is not known then: for peers."""
    assert {8000: Role.UNKNOWN} == roles(published(8000, inner=(29500,)))
    assert {8080: Role.UNKNOWN} == roles(published(8080, inner=()))


def test_the_operators_word_counts() -> None:
    """A definition that names the port of the host."""
    definition = WorkloadDefinition("mine", Match(argv="*vllm serve*"), frozenset({8080}))
    assert Role.API is roles(published(8080, 39500), definition)[8080]


def test_others_that_hold_sockets_elsewhere_are_left_alone() -> None:
    """A proxy of a mesh may live beside a workload and listen in the namespaces of others."""
    assert {} == roles(published(8000, 29500, exe="/usr/bin/ztunnel"))
