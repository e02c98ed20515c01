"""Ports that rootless Podman publishes: sockets of the host that lead into a container."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.recognize.node_builder import NAMESPACE, process, tcp
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


def relayed(*others: Process, inner: int = INSIDE, pids: tuple[int, ...] = (450,)) -> Node:
    """A job whose port 29500 is in one namespace, and a listener of the host held by others."""
    job = process(900, "/usr/bin/python3 /usr/local/bin/vllm serve tiny", namespace=inner)
    init = process(1, "/sbin/init", 0)
    listeners = tcp(29500, "0.0.0.0", 900, namespace=inner), tcp(29500, "::", *pids)
    return Node({one.pid: one for one in (init, job, *others)}, listeners)


def leads(node: Node) -> bool:
    """Whether the host's port is the job's."""
    (workload,) = recognize(node).workloads
    return [one.listener.namespace for one in workload.listeners] == [INSIDE, NAMESPACE]


def test_a_program_that_moved_into_the_container_leads_there() -> None:
    """As the proxy devices of LXD and Incus do, whatever user runs them."""
    assert leads(relayed(process(450, "/opt/incus/bin/incusd forkproxy", namespace=INSIDE)))


@pytest.mark.parametrize(
    ("uid", "exe", "expected"),
    [
        (1000, "/usr/bin/rootlesskit", True),
        (1001, "/usr/bin/rootlesskit", False),
        (1000, "/usr/bin/sleep", False),
    ],
)
def test_a_program_with_a_child_of_its_own_in_there_leads_there(
    uid: int, exe: str, expected: bool
) -> None:
    """As RootlessKit does; not a launcher whose child is another program, or another user's."""
    parent = process(450, "/usr/bin/rootlesskit", uid=1000)
    child = process(456, exe, 450, uid=uid, exe=exe, namespace=INSIDE)
    assert expected is leads(relayed(parent, child))


def test_a_launcher_whose_child_is_the_job_itself_leads_nowhere() -> None:
    """Its own port is not the job's, though it is the same program of the same user."""
    python = "/usr/bin/python3"
    launcher = process(450, f"{python} /srv/launch.py", exe=python)
    node = relayed(launcher)
    job = replace(node.processes[900], ppid=450, exe=python)
    assert not leads(replace(node, processes={**node.processes, 900: job}))


def test_a_listener_that_a_process_outside_holds_too_is_left_alone() -> None:
    """A user who takes an inherited listener into a namespace closes nobody's port."""
    launcher = process(440, "/usr/sbin/launcher")
    inside = process(450, "/bin/sh", 440, uid=1000, namespace=INSIDE)
    assert not leads(relayed(launcher, inside, pids=(440, 450)))
    assert leads(relayed(launcher, inside))


def test_programs_of_the_host_that_listen_elsewhere_are_left_alone() -> None:
    """A mesh's node proxy holds sockets in the namespaces of pods, beside a job of the host."""
    ztunnel = process(450, "/usr/bin/ztunnel")
    node = relayed(ztunnel, inner=NAMESPACE)
    outer = tcp(15008, "::", 450, namespace=INSIDE)
    found = recognize(Node(node.processes, (*node.listeners, outer)))
    assert outer in found.unclaimed
