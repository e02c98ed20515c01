"""Guards: a workload's ports are closed before they exist, and the traps on the way."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import cgroups
from tests.support.cgroups import cgroup
from tests.support.guarded import Guarded, eventually, guarded
from tests.support.guarding import number_of, numbers
from tests.support.lab import Lab

_numbers = itertools.count()
PORT = 29500
# Tells its cgroup's launcher name by exec, then listens at once: nothing can react in between.
SUDDEN = """
import socket, sys, time
one = socket.socket()
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
one.bind(("0.0.0.0", int(sys.argv[1])))
one.listen(4096)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(lab, tmp_path) as found:
        yield found


@pytest.fixture
def unit() -> Iterator[Path]:
    """The cgroup of a unit that holds nothing but what the test starts in it."""
    with cgroup(f"/vwtest-{os.getpid()}.slice/vw-{next(_numbers)}.service") as made:
        yield made


def is_guarded(node: Guarded) -> bool:
    """Whether a guard is active on the node, as nft shows the sets."""
    listed = node.lab.node.run(["nft", "list", "table", "inet", "vllmwall"]).stdout
    blocks = listed.split("\tset ")
    return any(one.startswith("guarded_") and "elements" in one for one in blocks)


def stranger(node: Guarded, port: int = PORT) -> str:
    return node.lab.stranger.connect(node.lab.node.ipv4, port)


def peer(node: Guarded, port: int = PORT) -> str:
    return node.lab.peer.connect(node.lab.node.ipv4, port)


def freeze(node: Guarded) -> None:
    """Stop the daemon where it is: what is closed from now on, the kernel closed."""
    assert node.process is not None
    os.kill(node.process.pid, 19)


def thaw(node: Guarded) -> None:
    assert node.process is not None
    os.kill(node.process.pid, 18)


def test_ports_are_closed_before_they_exist(node: Guarded, unit: Path) -> None:
    """The daemon sleeps while the workload opens its ports: strangers are out, peers are in."""
    rank = node.rank(unit)
    eventually(lambda: is_guarded(node), "the launch is seen", node.log)
    freeze(node)
    for address, port in (("0.0.0.0", PORT), ("::", 29600), (node.lab.node.ipv4, 43211)):
        rank.open("tcp", address, port)
        assert ("timeout", "open") == (stranger(node, port), peer(node, port))
    assert "timeout" == node.lab.stranger.connect(node.lab.node.ipv6, 29600)
    assert "open" == node.lab.peer.connect(node.lab.node.ipv6, 29600)
    thaw(node)


def test_the_api_opens_when_it_is_recognized(node: Guarded, unit: Path) -> None:
    """A guard never outlives the recognition of what is public."""
    server = node.server(8000, unit)
    eventually(lambda: is_guarded(node), "the launch is seen", node.log)
    server.open("tcp", "0.0.0.0", 8000)
    server.open("tcp", "0.0.0.0", PORT)
    eventually(lambda: stranger(node, 8000) == "open", "the API opens", node.log)
    assert "timeout" == stranger(node)


def test_answers_to_what_the_workload_opens_itself_pass(node: Guarded, unit: Path) -> None:
    """A guard looks at SYNs only: a download from a stranger's server goes on."""
    node.rank(unit)
    eventually(lambda: is_guarded(node), "the launch is seen", node.log)
    node.lab.stranger.listen("0.0.0.0", 80)
    script = f"import socket; s = socket.create_connection(('{node.lab.stranger.ipv4}', 80), 3)"
    script += "; s.send(b'x'); assert s.recv(1) == b'x'"
    node.lab.node.run(cgroups.inside(unit, [sys.executable, "-c", script]))


def test_a_restarted_unit_is_armed_before_its_first_process(node: Guarded, unit: Path) -> None:
    """Same path, new cgroup, new number: the old guard would match nothing.

    The server listens a moment after exec, its name tells nothing, and the daemon sleeps from
    before it starts. How soon the guard comes is tested in tests/kernel/engine, under a hammer.
    """
    rank, before = node.rank(unit), number_of(unit)
    eventually(lambda: before in numbers(node), "the launch is seen", node.log)
    rank.kill()
    cgroups.remove(unit)
    node.ask("reload")
    assert before not in numbers(node)
    try:
        eventually(lambda: is_armed_when_made(node, unit), "the new cgroup is armed", node.log)
        sudden(node, unit)
        assert ("timeout", "open") == (stranger(node), peer(node))
    finally:
        thaw(node)


def is_armed_when_made(node: Guarded, unit: Path) -> bool:
    """Make a cgroup again: whether it gets a guard in half a second. The daemon sleeps then.

    A pass that something else causes just then would take the guard away.
    """
    cgroups.remove(unit)
    unit.mkdir()
    deadline = time.monotonic() + 0.5
    while number_of(unit) not in numbers(node) and time.monotonic() < deadline:
        time.sleep(0.01)
    freeze(node)
    if number_of(unit) in numbers(node):
        return True
    thaw(node)
    return False


def sudden(node: Guarded, unit: Path) -> None:
    """Start a server whose command line tells nothing; wait until it listens."""
    argv = cgroups.inside(unit, [sys.executable, "-c", SUDDEN, str(PORT)])
    started = node.lab.node.popen(argv)
    assert started.stdout is not None
    assert "ready\n" == started.stdout.readline()
