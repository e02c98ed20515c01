"""`vllmwall connections`: real connections to workloads, with the bytes that went over them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.scenario.test_refused_clients import command, listen, other_rank, run
from tests.support.answers import Json
from tests.support.guarded import Guarded, eventually, guarded
from tests.support.lab import Host, Lab
from vllmwall.api.connections import Connections
from vllmwall.linux.wire import Fit, decode

PORT = 29500


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    """A rank that listens on both families behind a wall."""
    with guarded(lab, tmp_path) as found:
        listen(found)
        yield found


@pytest.fixture
def held() -> Iterator[ExitStack]:
    """Connections that end with the test."""
    with ExitStack() as stack:
        yield stack


def asked(node: Guarded) -> Json:
    """The daemon's answer, in its published shape."""
    answer = node.ask("connections")
    decode(Connections, answer, Fit.WHOLE)
    return answer


def clients(node: Guarded) -> dict[str, Json]:
    """Who is connected, by address."""
    found = asked(node)
    assert found["complete"]
    assert [] == found["problems"]
    return {one["client"]: one for one in found["clients"]}


def dialled(held: ExitStack, host: Host, address: str, port: int = PORT) -> socket.socket:
    """A connection that the test holds."""
    return held.enter_context(host.dial(address, port))


def served(program_port: int, node: Guarded, held: ExitStack) -> None:
    """An API on the node, by a process that is started as vLLM is."""
    node.server(program_port).open("tcp", "::", program_port)


def test_peers_are_shown_with_what_they_sent(node: Guarded, held: ExitStack) -> None:
    """Bytes as the sender counts them, in both families; two of one client are added up."""
    target, peer = node.lab.node, node.lab.peer
    for number in (1, 2):
        dialled(held, peer, target.ipv4).sendall(b"x" * 1000 * number)
    dialled(held, peer, target.ipv6).sendall(b"y" * 77)
    eventually(
        lambda: (
            clients(node)[peer.ipv4]["bytes_received"] == 3000
            and clients(node)[peer.ipv6]["bytes_received"] == 77
        ),
        "all that was sent has come",
    )
    four, six = clients(node)[peer.ipv4], clients(node)[peer.ipv6]
    assert (2, 1) == (four["connections"], six["connections"])
    assert 2 == len(four["client_ports"])
    for one in (four, six):
        assert ("established", PORT, ["peers"], "torch", False, 0) == (
            one["state"],
            one["port"],
            one["audience"],
            one["stack"],
            one["here"],
            one["bytes_sent"],
        )
        assert one["workload"] in asked(node)["workloads"]


def test_what_the_workload_sends_is_counted_too(lab: Lab, tmp_path: Path, held: ExitStack) -> None:
    """By what the client has acknowledged."""
    script = (
        "import socket,sys\n"
        "one = socket.create_server(('0.0.0.0', 29500))\n"
        "print('ready', flush=True)\n"
        "held = one.accept()[0]\n"
        "held.sendall(b'z' * 4321)\n"
        "sys.stdin.read()\n"
    )
    with guarded(lab, tmp_path) as node:
        node.config.write_text(
            "[peers]\ncidrs = ['192.0.2.2/32']\n"
            "[[workload]]\nname = 'talker'\nmatch = {argv = '*socket.create_server*'}\n"
        )
        node.ask("reload")
        entry = lab.node.command([sys.executable, "-c", script])
        process = subprocess.Popen(
            entry, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        held.callback(process.communicate)
        held.callback(process.kill)
        assert process.stdout is not None
        process.stdout.readline()
        node.wait_for_rules(1)
        dialled(held, lab.peer, lab.node.ipv4)
        eventually(
            lambda: clients(node)[lab.peer.ipv4]["bytes_sent"] == 4321, "all of it has arrived"
        )
        assert 0 == clients(node)[lab.peer.ipv4]["bytes_received"]


def test_strangers_that_are_kept_out_are_not_connected(node: Guarded) -> None:
    """A SYN that is dropped is no connection."""
    assert "timeout" == node.lab.stranger.connect(node.lab.node.ipv4, PORT)
    assert {} == clients(node)
    assert "No client is connected." in run(node, "connections")


def test_a_client_that_left_is_gone(node: Guarded, held: ExitStack) -> None:
    """Now means now; one whose socket the workload still holds shows its state."""
    made = dialled(held, node.lab.peer, node.lab.node.ipv4)
    assert "established" == clients(node)[node.lab.peer.ipv4]["state"]
    made.close()
    eventually(
        lambda: clients(node)[node.lab.peer.ipv4]["state"] == "close-wait", "the client has left"
    )


def test_api_clients_and_ranks_are_told_apart(node: Guarded, held: ExitStack) -> None:
    """By role and by workload; a name that nothing has is an error."""
    served(8000, node, held)
    node.wait_for_rules(2)
    stranger, peer, target = node.lab.stranger, node.lab.peer, node.lab.node
    dialled(held, stranger, target.ipv4, 8000)
    dialled(held, peer, target.ipv4)
    assert {stranger.ipv4, peer.ipv4} == set(clients(node))

    def shown(which: str) -> set[str]:
        answer = json.loads(run(node, "connections", which, "--json"))
        return {one["client"] for one in answer["clients"]}

    assert {stranger.ipv4} == shown("api")
    assert {peer.ipv4} == shown(clients(node)[peer.ipv4]["role"])
    assert {stranger.ipv4} == shown(clients(node)[stranger.ipv4]["workload"])
    assert {stranger.ipv4} == shown("vllm")
    assert set() == shown("debug")
    done = subprocess.run(
        command(node, "connections", "nobody"), capture_output=True, text=True, check=False
    )
    assert 2 == done.returncode
    assert "'nobody' is no workload and no role" in done.stderr


def test_this_hosts_own_connections_are_left_out(node: Guarded, held: ExitStack) -> None:
    """A node talks to itself all day; --local shows that too."""
    dialled(held, node.lab.node, node.lab.node.ipv4)
    assert clients(node)[node.lab.node.ipv4]["here"]
    assert [] == json.loads(run(node, "connections", "--json"))["clients"]
    (one,) = json.loads(run(node, "connections", "--local", "--json"))["clients"]
    assert node.lab.node.ipv4 == one["client"]
    assert "(here)" in run(node, "connections", "--local")


def test_every_namespace_is_looked_into(lab: Lab, tmp_path: Path, held: ExitStack) -> None:
    """A client of a container is one of the node."""
    other = lab.host("other", "192.0.2.50", "2001:db8::50")
    with guarded(lab, tmp_path, arguments=("--only-namespace", other.path)) as node:
        listen(node)
        with other_rank(node, other):
            eventually(
                lambda: lab.stranger.connect("192.0.2.50", PORT, timeout=0.05) == "timeout",
                "the wall stands there too",
            )
            dialled(held, lab.peer, lab.node.ipv4).sendall(b"one")
            dialled(held, lab.peer, "2001:db8::50").sendall(b"other")

            def received() -> dict[str, int]:
                found = asked(node)["clients"]
                return {one["namespace"]: one["bytes_received"] for one in found}

            wanted = {Path(lab.node.path).name: 3, Path(other.path).name: 5}
            eventually(lambda: received() == wanted, "both clients are seen")


def test_a_banned_address_is_refused(node: Guarded, held: ExitStack) -> None:
    """`connections --ban` bans as `vllmwall ban` does: its packets get no answer any more."""
    served(8000, node, held)
    stranger, target = node.lab.stranger, node.lab.node.ipv4
    eventually(lambda: "open" == stranger.connect(target, 8000), "the API is public")
    assert f"{stranger.ipv4} is banned" in run(node, "connections", "--ban", stranger.ipv4)
    assert f"{stranger.ipv4}/32" in run(node, "bans")
    assert "timeout" == stranger.connect(target, 8000, timeout=0.2)


def test_a_peer_is_not_banned_by_mistake(node: Guarded) -> None:
    """The daemon refuses, and the command says so and fails."""
    argv = command(node, "connections", "--ban", node.lab.peer.ipv4)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (1, "") == (done.returncode, done.stdout)
    assert "not banned" in done.stderr
    assert "open" == node.lab.peer.connect(node.lab.node.ipv4, PORT)
