"""Clients behind this node's own NAT: a node port that masquerades, in front of a pod's wall.

All of them have the address of the node's bridge there, so it must not be a peer, and nothing of
ours may propose it as one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.guarded import RANK, Guarded, Program, eventually, guarded
from tests.support.lab import Host, Lab
from tests.support.severing import dialled, lives
from tests.support.sharing import open_to_all_users
from vllmwall.linux.netns import run_in

DELETE = ["nft", "delete", "table", "inet", "vllmwall"]
NODES = "192.0.2.0/24"
BRIDGE = """
ip link add cni0 type bridge; ip addr add 10.244.0.1/24 dev cni0; ip link set cni0 up
ip link add v0 type veth peer name eth0 netns {0}; ip link set v0 master cni0 up
sysctl -qw net.ipv4.ip_forward=1
"""
POD = """
ip link set lo up; ip addr add 10.244.0.7/24 dev eth0; ip link set eth0 up
ip route add default via 10.244.0.1
"""
NODE_PORT = """nft -f - <<'E'
table ip kube-proxy {
    map service-nodeports {
        type inet_proto . inet_service : verdict
        elements = { tcp . 30500 : goto external-A }
    }
    chain nat-prerouting {
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local meta l4proto . th dport vmap @service-nodeports
    }
    chain nat-postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        meta mark & 0x4000 == 0x4000 masquerade
    }
    chain external-A { meta mark set meta mark or 0x4000; goto service-A; }
    chain service-A { meta l4proto tcp dnat to 10.244.0.7:29500; }
}
E
"""


@pytest.fixture
def pod(lab: Lab) -> Host:
    """A pod behind a bridge of the node, at a node port."""
    path = lab._namespace("pod")
    made = Host("pod", path, lab._hosts_file, lab._stack)
    lab.node.run(["sh", "-ec", BRIDGE.format(path)])
    made.run(["sh", "-ec", POD])
    lab.node.run(["sh", "-ec", NODE_PORT])
    return made


@pytest.fixture
def node(lab: Lab, pod: Host, tmp_path: Path) -> Iterator[Guarded]:
    """A daemon for both namespaces, and a rank in the pod."""
    with guarded(lab, tmp_path, arguments=("--only-namespace", pod.path)) as found:
        library = tmp_path / "libtorch_cpu.so"
        library.write_bytes(b"not really")
        env = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LIBTORCH": str(library)}
        env |= {"MASTER_ADDR": "10.244.0.7", "MASTER_PORT": "29500", "LOCAL_WORLD_SIZE": "1"}
        process = subprocess.Popen(
            pod.command([sys.executable, "-c", RANK]),
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        program = Program(process)
        pod._stack.callback(program.kill)
        program.echo("0.0.0.0", 29500)
        open_to_all_users(tmp_path)
        yield found


def peers(node: Guarded, *networks: str) -> None:
    """Configure these peers."""
    node.configure(f"[peers]\ncidrs = {list(networks)}\n")
    node.ask("reload")
    node.wait_for_rule(29500)


def reserved(node: Guarded) -> list[str]:
    """The kinds of reservations, without what a busy machine adds."""
    found = node.ask("status")["reservations"]
    assert isinstance(found, list)
    return [one["kind"] for one in found if one["kind"] != "events-lost"]


def test_a_peer_network_that_holds_a_bridge_is_not_safe(node: Guarded) -> None:
    """Any stranger who comes through the node port has the address of the bridge."""
    peers(node, NODES, "10.244.0.0/16")
    assert "open" == node.lab.stranger.connect(node.lab.node.ipv4, 30500)
    answer = node.ask("status")
    assert answer["safe"] is None
    [line] = [one for one in answer["reservations"] if one["kind"] == "shared-peer"]  # type: ignore[attr-defined]
    assert "peers, 10.244.0.0/16" == line["where"]
    assert "10.244.0.1, the address of cni0 on this node" in line["what"]
    command = [sys.executable, "-m", "vllmwall"]
    checked = node.lab.node.run([*command, "check", str(node.config)]).stdout
    assert "! peers.cidrs: 10.244.0.0/16 is a risk: it holds 10.244.0.1" in checked
    socket = {**os.environ, "VLLMWALL_SOCKET": str(node.runtime / "control.sock")}
    doctor = subprocess.run(
        node.lab.node.command([*command, "doctor", "--json"]),
        env=socket,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "it holds 10.244.0.1" in doctor.stdout
    peers(node, NODES)
    assert "timeout" == node.lab.stranger.connect(node.lab.node.ipv4, 30500)
    assert [] == reserved(node)
    assert "risk" not in node.lab.node.run([*command, "check", str(node.config)]).stdout


def test_a_network_that_holds_the_bridge_is_not_proposed_to_a_job(node: Guarded) -> None:
    """The pod's own subnet is where its other hosts are, and where everybody behind NAT is."""
    peers(node)
    problems = node.ask("status")["problems"]
    assert isinstance(problems, list)
    [line] = [one for one in problems if "hosts that join it are blocked" in one]
    assert "10.244.0" not in line
    assert "vllmwall peers add CIDR --save" in line


def test_an_address_of_the_node_is_never_proposed_as_a_peer(node: Guarded) -> None:
    """Three tries of one stranger are enough for a proposal."""
    peers(node, NODES)
    for _ in range(3):
        assert "timeout" == node.lab.stranger.connect(node.lab.node.ipv4, 30500)

    def refused() -> list[dict[str, object]]:
        sources = node.ask("blocked")["sources"]
        assert isinstance(sources, list)
        return [one for one in sources if one["source"] == "10.244.0.1" and one["packets"] >= 3]

    eventually(lambda: bool(refused()), "the bridge was refused")
    [one] = refused()
    assert "" == one["command"]
    assert "an address of this node" in str(one["hint"])


def test_a_node_port_is_explained_as_what_it_is(node: Guarded) -> None:
    """Never as closed because nobody listens there."""
    peers(node, NODES)
    words = [sys.executable, "-m", "vllmwall", "--socket", str(node.runtime / "control.sock")]
    words += ["explain", "203.0.113.9", "30500", "--config", str(node.config)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert 9 == done.returncode, done.stdout + done.stderr
    assert "kube-proxy forwards it to 10.244.0.7:29500" in done.stdout


def test_an_address_of_the_node_is_never_adopted(node: Guarded) -> None:
    """All hosts behind the node port have it; the first wall meets one of them."""
    node.stop()
    for file in ("adopted.json", "apis.json"):
        (node.runtime / file).unlink(missing_ok=True)
    for path in (node.lab.node.path, node.arguments[1]):
        run_in(
            path,
            lambda: subprocess.run(DELETE, check=False),
        )
    with ExitStack() as held:
        theirs = dialled(held, node.lab.stranger, node.lab.node.ipv4, 30500)
        node.start()
        assert not lives(theirs)
    assert "timeout" == node.lab.stranger.connect(node.lab.node.ipv4, 30500)
    [answer] = node.ask("adopted.list")["adopted"]  # type: ignore[misc]
    assert [] == answer["hosts"]
    assert [{"address": "10.244.0.1", "why": "ours"}] == answer["refused"]
