"""Bans: who is banned reaches nothing of this node but the failsafe ports, from the moment on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.guarded import PEERS, Guarded, eventually, guarded
from tests.support.hammer import hammer
from tests.support.icmp import pings
from tests.support.lab import PEER, STRANGER, Lab
from tests.support.severing import dialled, ending, lives
from tests.support.walls import ask_all, networks, probe, wall
from vllmwall.api.errors import ControlError
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.model import Proto

API, OTHER, SSH = 8000, 7000, 22
DOORS = [(proto, port) for proto in (Proto.TCP, Proto.UDP) for port in (API, OTHER, SSH)]


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    """A node that echoes at every door, with a daemon; udp/22 is failsafe too."""
    for proto, port in DOORS:
        (lab.node.listen if proto is Proto.TCP else lab.node.listen_udp)("::", port)
    found = Guarded(lab, tmp_path / "node")
    found.configure(PEERS + "[host]\nfailsafe = ['udp/22']\n")
    found.start()
    yield found
    if found.process is not None and found.process.poll() is None:
        found.stop()


def seen_by_stranger(lab: Lab, address: str) -> dict[tuple[Proto, int], str]:
    """What the stranger gets at every door."""
    return ask_all(DOORS, lambda door: probe(lab.stranger, door[0], address, door[1]))


def only_failsafe() -> dict[tuple[Proto, int], str]:
    """What a banned host gets."""
    return {door: "open" if door[1] == SSH else "timeout" for door in DOORS}


@pytest.mark.parametrize("family", [4, 6])
def test_a_ban_closes_the_whole_node_but_its_failsafe_ports(node: Guarded, family: int) -> None:
    """API, other programs' ports, TCP and UDP; ssh and ICMP stay, and so do all others."""
    lab, stranger = node.lab, STRANGER[family == 6]
    address = lab.node.ipv4 if family == 4 else lab.node.ipv6
    assert seen_by_stranger(lab, address) == dict.fromkeys(DOORS, "open")
    node.ask("bans.add", ssh_client="", networks=[stranger])
    assert seen_by_stranger(lab, address) == only_failsafe()
    assert pings(lab.stranger, address)
    assert {one["role"] for one in node.ask("blocked")["sources"]} == {"ban"}  # type: ignore[attr-defined]
    assert lab.peer.connect(address, OTHER) == "open"
    node.ask("bans.remove", networks=[stranger])
    assert seen_by_stranger(lab, address) == dict.fromkeys(DOORS, "open")


def test_a_ban_of_a_network_holds_all_of_it(node: Guarded) -> None:
    """A /64 bans each address of it and none beside it."""
    lab = node.lab
    lab.stranger.add_address("2001:db8:bad::77", "2001:db8:bad:1::77")
    node.ask("bans.add", ssh_client="", networks=["2001:db8:bad::/64"])
    address = lab.node.ipv6
    assert lab.stranger.connect(address, OTHER, source="2001:db8:bad::77") == "timeout"
    assert lab.stranger.connect(address, OTHER, source="2001:db8:bad:1::77") == "open"


def test_connections_of_the_banned_are_reset_at_once(node: Guarded) -> None:
    """At any port, and in either direction; at failsafe ports and others' they live on."""
    lab = node.lab
    lab.stranger.listen("::", 9000)
    with ExitStack() as held:
        cut = [dialled(held, lab.stranger, lab.node.ipv4, port) for port in (API, OTHER)]
        outward = dialled(held, lab.node, lab.stranger.ipv4, 9000)
        ssh = dialled(held, lab.stranger, lab.node.ipv4, SSH)
        friend = dialled(held, lab.peer, lab.node.ipv4, OTHER)
        answer = node.ask("bans.add", ssh_client="", networks=[lab.stranger.ipv4], force=True)
        assert answer["severed"] == 3
        assert [ending(one) is not None for one in (*cut, outward)] == [True] * 3
        assert lives(ssh)
        assert lives(friend)


@pytest.mark.serial
def test_a_ban_ends_on_time(node: Guarded) -> None:
    """Without a restart, a pass or a question."""
    lab = node.lab
    begun = time.monotonic()
    node.ask("bans.add", ssh_client="", networks=[lab.stranger.ipv4], seconds=2)
    assert lab.stranger.connect(lab.node.ipv4, OTHER) == "timeout"
    eventually(lambda: lab.stranger.connect(lab.node.ipv4, OTHER) == "open", "the ban is over")
    assert 2.0 <= time.monotonic() - begun < 6.0
    assert node.ask("bans.list")["bans"] == []


def test_a_ban_outlives_the_daemon_and_its_configuration(node: Guarded) -> None:
    """Killed or reloaded, with a ban that ends and one that does not."""
    lab = node.lab
    node.ask("bans.add", ssh_client="", networks=[lab.stranger.ipv4], reason="scans us")
    node.ask("bans.add", ssh_client="", networks=["198.51.100.0/24"], seconds=3600)
    before = node.ask("bans.list")["bans"]
    node.configure("")
    node.ask("reload")
    assert lab.stranger.connect(lab.node.ipv4, OTHER) == "timeout"
    node.stop(signal.SIGKILL)
    assert lab.stranger.connect(lab.node.ipv4, OTHER) == "timeout"
    node.start()
    assert lab.stranger.connect(lab.node.ipv4, OTHER) == "timeout"
    assert node.ask("bans.list")["bans"] == before


def test_a_ban_outlives_a_boot(lab: Lab, tmp_path: Path) -> None:
    """From the script that stands before the network does, and then from the state directory."""
    lab.node.listen("::", OTHER)
    state = tmp_path / "state"
    options = ("--state-dir", str(state))
    with guarded(lab, tmp_path / "first", arguments=options) as node:
        node.ask("bans.add", ssh_client="", networks=[lab.stranger.ipv4])
        script = state / "boot.nft"
        eventually(lambda: lab.stranger.ipv4 in script.read_text(), "the script has the ban")
    lab.node.run(["nft", "flush", "ruleset"])
    assert lab.stranger.connect(lab.node.ipv4, OTHER) == "open"
    lab.node.run(["nft", "-f", str(script)])
    assert lab.stranger.connect(lab.node.ipv4, OTHER) == "timeout"
    with guarded(lab, tmp_path / "second", arguments=options) as node:
        assert [one["network"] for one in node.ask("bans.list")["bans"]] == [  # type: ignore[attr-defined]
            f"{lab.stranger.ipv4}/32"
        ]
        assert lab.stranger.connect(lab.node.ipv4, OTHER) == "timeout"


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("192.0.2.0/24", "contains 192.0.2.1, an address of this host"),
        ("2001:db8::1", "an address of this host"),
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0/0", "every address"),
        ("::/0", "every address"),
    ],
)
def test_the_host_itself_and_everyone_are_never_banned(
    node: Guarded, network: str, words: str
) -> None:
    """Not by force either, and nothing is changed."""
    for force in (False, True):
        with pytest.raises(ControlError, match=words):
            node.ask("bans.add", ssh_client="", networks=["203.0.113.77", network], force=force)
    assert node.ask("bans.list")["bans"] == []


def test_a_peer_is_banned_by_force_only(node: Guarded) -> None:
    """A ban is stronger than the peers' list, so it has to be meant."""
    lab = node.lab
    with pytest.raises(ControlError, match=r"(?s)contains peers \(192.0.2.2/32\).*--force"):
        node.ask("bans.add", ssh_client="", networks=["192.0.2.2/31"])
    assert lab.peer.connect(lab.node.ipv4, OTHER) == "open"
    node.ask("bans.add", ssh_client="", networks=["192.0.2.2/31"], force=True)
    assert lab.peer.connect(lab.node.ipv4, OTHER) == "timeout"


def test_whoever_is_connected_by_ssh_is_banned_by_force_only(node: Guarded) -> None:
    """Known from the asker's environment, and from the sockets where sudo took that away."""
    lab = node.lab
    with pytest.raises(ControlError, match="this ban may lock you out"):
        node.ask("bans.add", networks=["198.51.100.0/24"], ssh_client="198.51.100.7")
    with ExitStack() as held:
        dialled(held, lab.stranger, lab.node.ipv4, SSH)
        with pytest.raises(ControlError, match=f"contains {lab.stranger.ipv4}"):
            node.ask("bans.add", ssh_client="", networks=["203.0.113.0/24"])
        node.ask("bans.add", ssh_client="", networks=["203.0.113.0/24"], force=True)
    node.ask("bans.add", ssh_client="", networks=["198.51.100.0/24"])


def test_a_ban_survives_somebody_who_flushes_it(node: Guarded) -> None:
    """Our bans are put back, like everything in our table."""
    lab = node.lab
    node.ask("bans.add", ssh_client="", networks=[lab.stranger.ipv4])
    for edit in ("flush set inet vllmwall banned4", "delete table inet vllmwall"):
        subprocess.run(lab.node.command(["nft", edit]), capture_output=True, check=False)
        eventually(
            lambda: lab.stranger.connect(lab.node.ipv4, OTHER) == "timeout", "the ban stands again"
        )


def test_a_ban_counts_packets_only_in_audit_mode_and_says_so(node: Guarded) -> None:
    """audit drops nothing, whatever was ordered."""
    lab = node.lab
    node.configure("mode = 'audit'\n")
    node.config.write_text("mode = 'audit'\n")
    node.ask("reload")
    answer = node.ask("bans.add", ssh_client="", networks=[lab.stranger.ipv4])
    assert answer["enforced"] is False
    assert "audit mode drops nothing" in str(answer["problems"])
    assert lab.stranger.connect(lab.node.ipv4, OTHER) == "open"


def test_the_command_line_bans_lists_and_lifts(node: Guarded) -> None:
    """As a person types it, and as a script reads it."""
    lab = node.lab
    done = cli(node, "ban", "203.0.113.0/24", "--for", "1h", "--reason", "scan\x1b[31m")
    assert (done.returncode, done.stderr) == (0, "")
    assert "203.0.113.0/24" in done.stdout
    assert lab.stranger.connect(lab.node.ipv4, OTHER) == "timeout"
    listed = json.loads(cli(node, "bans", "--json").stdout)
    assert [one["network"] for one in listed["bans"]] == ["203.0.113.0/24"]
    assert listed["bans"][0]["expires"] - listed["bans"][0]["since"] == 3600
    assert "\x1b" not in cli(node, "bans").stdout
    done = cli(node, "unban", "203.0.113.9")
    assert (done.returncode, done.stdout) == (1, "")
    assert "203.0.113.9/32 is not banned by itself; 203.0.113.0/24 is" in done.stderr
    assert cli(node, "unban", "203.0.113.0/24").stdout == "no bans\n"
    assert lab.stranger.connect(lab.node.ipv4, OTHER) == "open"
    done = cli(node, "ban", "198.51.100.7", SSH_CONNECTION="198.51.100.7 50000 192.0.2.1 22")
    assert (done.returncode, done.stdout) == (1, "")
    assert "--force" in done.stderr


def cli(node: Guarded, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command against the node's daemon."""
    socket = str(node.runtime / "control.sock")
    return subprocess.run(
        [sys.executable, "-m", "vllmwall", "--socket", socket, *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def _cycle(backend: Nftables, lab: Lab, around: list[list[str]]) -> Callable[[], None]:
    walls = [replace(wall(lab.node, []), banned=networks(*those)) for those in around]

    def once() -> None:
        for standing, wanted in zip(walls, [*walls[1:], walls[0]], strict=True):
            backend.apply(lab.node.path, wanted, standing)

    backend.apply(lab.node.path, walls[0], None)
    return once


@pytest.mark.serial
@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_nothing_of_the_banned_slips_in_while_bans_change(
    lab: Lab, backend: Nftables, proto: str
) -> None:
    """Networks around a banned one come, swallow it and go again; it stays banned."""
    lab.node.listen("::", OTHER)
    lab.node.listen_udp("::", OTHER)
    door = (lab.node.ipv4, OTHER)
    assert hammer(lab.stranger, proto, door, 0.3, lambda: None)[1] > 0
    one, many = "203.0.113.9", [f"198.51.100.{n}" for n in range(0, 100, 2)]
    around = [[one], ["203.0.113.8/29"], [one, *many], ["203.0.113.0/24"], [one, "203.0.113.8"]]
    cycle = _cycle(backend, lab, around)
    tried, opened = hammer(lab.stranger, proto, door, 3, cycle)
    assert tried > 500
    assert opened == 0


@pytest.mark.serial
def test_a_replaced_table_lets_no_banned_in(lab: Lab, backend: Nftables) -> None:
    """Nor does the whole table when it is made anew."""
    lab.node.listen_udp("::", OTHER)
    wanted = replace(wall(lab.node, [], peers=PEER), banned=networks("203.0.113.9"))
    backend.apply(lab.node.path, wanted, None)
    again = lambda: backend.apply(lab.node.path, wanted, None)  # noqa: E731
    tried, opened = hammer(lab.stranger, "udp", (lab.node.ipv4, OTHER), 3, again)
    assert tried > 500
    assert opened == 0
