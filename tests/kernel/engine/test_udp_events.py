"""UDP ports of workloads: closed when they are bound, and given back when they are gone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guarded import Guarded, Program, eventually, guarded
from tests.support.lab import Lab
from tests.support.reconciling import kept
from vllmwall.engine.event_handlers import follow
from vllmwall.engine.reconciler import Reconciler
from vllmwall.observe.events import LOOK_AT_UDP, BindEvent

PORT = 40001
# Opens and closes UDP ports as it is told to, and echoes what comes.
ECHO = """
import os, select, socket
held, rest = {}, b""
print("ready", flush=True)
while True:
    for one in select.select([0, *held.values()], [], [])[0]:
        if one != 0:
            data, sender = one.recvfrom(64)
            one.sendto(data, sender)
            continue
        rest += os.read(0, 4096)
        *lines, rest = rest.split(b"\\n")
        for line in lines:
            verb, _, address, port = line.decode().split()
            if verb == "close":
                held.pop(port).close()
            else:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                held[port] = socket.socket(family, socket.SOCK_DGRAM)
                held[port].bind((address, int(port)))
            print("done", flush=True)
"""


def echo(node: Guarded, **env: str) -> Program:
    """A process that echoes; a rank of torch with that environment."""
    return node._program([sys.executable, "-c", ECHO], {**os.environ, **env})


def rank(node: Guarded) -> Program:
    """A workload that echoes."""
    library = node.folder / "libtorch_cpu.so"
    library.write_bytes(b"not really")
    env = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "192.0.2.1"}
    return echo(node, **env, MASTER_PORT="29500")


def found(node: Guarded) -> tuple[str, str]:
    """What a stranger and a peer get at the port."""
    address = node.lab.node.ipv4
    return node.lab.stranger.udp(address, PORT), node.lab.peer.udp(address, PORT)


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Guarded:
    return Guarded(lab, tmp_path)


@pytest.fixture
def keeper(node: Guarded) -> Iterator[Reconciler]:
    """Walls that only the test changes; its node has a workload."""
    with kept(node) as made:
        made.full_pass()
        yield made


def member(keeper: Reconciler) -> int:
    """The pid of the workload, whose namespace has a wall."""
    keeper.walls.read_back(min(keeper.home))
    keeper.full_pass()
    (pid,) = keeper.members
    return pid


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1"])
def test_a_port_is_closed_when_it_is_bound(node: Guarded, keeper: Reconciler, address: str) -> None:
    """At once, and by the pass that follows too."""
    job = rank(node)
    pid = member(keeper)
    job.open("udp", address, PORT)
    assert ("open", "open") == found(node)
    assert follow(keeper, [BindEvent(pid)]).quick
    assert ("timeout", "open") == found(node)
    keeper.quick_pass()
    assert ("timeout", "open") == found(node)


def test_a_port_of_nobodys_job_stays_open(node: Guarded, keeper: Reconciler) -> None:
    """Also where a job bound a socket, too."""
    rank(node)
    pid = member(keeper)
    other = echo(node)
    other.open("udp", "0.0.0.0", PORT)
    follow(keeper, [BindEvent(pid), BindEvent(other._process.pid)])
    keeper.quick_pass()
    assert ("open", "open") == found(node)


@pytest.mark.parametrize("by_bind", [True, False])
def test_a_port_that_is_gone_can_be_anothers(
    node: Guarded, keeper: Reconciler, by_bind: bool
) -> None:
    """A client of the name server gets any free port, and its answers come from strangers."""
    job = rank(node)
    pid = member(keeper)
    job.open("udp", "0.0.0.0", PORT)
    follow(keeper, [BindEvent(pid)])
    keeper.quick_pass()
    job.close("udp", "0.0.0.0", PORT)
    other = echo(node)
    other.open("udp", "0.0.0.0", PORT)
    assert ("timeout", "open") == found(node)
    event = BindEvent(other._process.pid) if by_bind else LOOK_AT_UDP
    assert follow(keeper, [event]).quick
    keeper.quick_pass()
    assert ("open", "open") == found(node)


def test_a_socket_that_cannot_be_read_keeps_its_rule(node: Guarded, keeper: Reconciler) -> None:
    """A namespace that does not answer is not one without sockets."""
    job = rank(node)
    pid = member(keeper)
    job.open("udp", "0.0.0.0", PORT)
    follow(keeper, [BindEvent(pid)])
    for dump in keeper.observer.namespaces._dumps.values():
        dump._socket.close()
    assert not follow(keeper, [LOOK_AT_UDP]).quick
    keeper.quick_pass()
    assert ("timeout", "open") == found(node)


def test_the_daemon_follows(lab: Lab, tmp_path: Path) -> None:
    """Events of the kernel alone bring it there: its passes are ten minutes apart."""
    with guarded(lab, tmp_path) as node:
        job = rank(node)
        eventually(lambda: node.ask("status")["workloads"], "the workload is known")
        node.settled()
        job.open("udp", "0.0.0.0", PORT)
        eventually(lambda: found(node) == ("timeout", "open"), "it is closed", node.log)
        job.close("udp", "0.0.0.0", PORT)
        echo(node).open("udp", "0.0.0.0", PORT)
        eventually(lambda: found(node) == ("open", "open"), "it is open again", node.log)
