"""`vllmwall prove` on a real node: it tells the truth, disturbs nobody and leaves nothing."""

from __future__ import annotations

import contextlib
import copy
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.guarded import PEERS, Guarded, eventually, guarded
from tests.support.lab import Host, Lab
from tests.support.proving import CLOSED, OPEN, fates, probes, proved, traces
from tests.support.serving import served
from vllmwall.api.server import ControlServer
from vllmwall.inspect.prove.harness import locked, staged
from vllmwall.inspect.prove.plan import Expected, Probe, Source, Target, Way
from vllmwall.inspect.prove.probes import ProbeRun
from vllmwall.inspect.prove.verdicts import Reply
from vllmwall.linux.netns import run_in
from vllmwall.model import Proto


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(lab, tmp_path) as found:
        yield found


def test_a_stranger_gets_the_api_alone_and_a_peer_gets_all(node: Guarded) -> None:
    """By both families, over TCP and UDP; a port of loopback is named and not probe."""
    node.server(8000).open("tcp", "0.0.0.0", 8000)
    rank = node.rank()
    rank.open("tcp", "::", 29500)
    rank.open("tcp", "192.0.2.1", 29501)
    rank.open("udp", "0.0.0.0", 5000)
    rank.open("tcp", "127.0.0.1", 7000)
    node.ask("reload")
    answer = proved(node, "--peer", "192.0.2.2", "--peer", "2001:db8::2")
    assert OPEN == fates(answer, 8000) == fates(answer, 8000, "peer")
    for port in (29500, 29501, 5000):
        assert CLOSED == fates(answer, port), port
        assert OPEN == fates(answer, port, "peer"), port
    assert {"192.0.2.1", "2001:db8::1"} == {one.address for one in probes(answer, 29500)}
    assert {"by vllmwall"} == {one.by for one in answer.probes if one.seen == "closed"}
    assert ["tcp 127.0.0.1:7000"] == [one.listener for one in answer.skipped]
    assert answer.as_expected


def test_only_the_api_is_connected_to(node: Guarded) -> None:
    """A connect would end a TensorPipe agent and hold up an NCCL bootstrap."""
    node.server(8000).open("tcp", "0.0.0.0", 8000)
    node.rank().open("tcp", "::", 29500)
    node.ask("reload")
    answer = proved(node)
    assert {"connect"} == {one.way for one in probes(answer, 8000)}
    assert {"syn"} == {one.way for one in probes(answer, 29500)}


def test_no_program_notices_a_try_that_comes_through(lab: Lab, tmp_path: Path) -> None:
    """accept() and recv() of a listener that is open to all never return, nor does a poll."""
    node = lab.node
    woken: list[str] = []
    with (
        closing(node.open_socket(socket.AF_INET6, socket.SOCK_STREAM)) as listening,
        closing(node.open_socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiving,
    ):
        listening.bind(("::", 29500))
        listening.listen()
        receiving.bind(("0.0.0.0", 5000))
        for made, take in ((listening, "accept"), (receiving, "recv")):
            made.settimeout(None)
            arguments = (64,) if take == "recv" else ()
            thread = threading.Thread(
                target=_blocked, args=(made, take, arguments, woken), daemon=True
            )
            thread.start()
        answers = _tried_directly(node, 29500, 5000)
        assert {Reply.OPEN} == {seen for one, seen in answers.items() if one.way is Way.SYN}
        assert [] == woken
        assert "open" == lab.stranger.connect(node.ipv4, 29500)
        assert "timeout" == lab.stranger.udp(node.ipv4, 5000)
        eventually(lambda: {"accept", "recv"} == set(woken), "both would have told")


def _blocked(made: socket.socket, take: str, arguments: tuple[int, ...], woken: list[str]) -> None:
    with contextlib.suppress(OSError):
        getattr(made, take)(*arguments)
        woken.append(take)


def _tried_directly(node: Host, tcp: int, udp: int) -> dict[Probe, Reply]:
    """Every way but connect, from a stranger of both families, without a wall."""
    sources = [Source("stranger", ip_address(one)) for one in ("198.51.100.77", "2001:db8::77")]
    found = []
    for source, address in zip(sources, (node.ipv4, node.ipv6), strict=True):
        target = Target(ip_address(address), Proto.TCP, tcp, address, "tcpstore")
        found.append(Probe(source, target, Way.SYN, Expected.CLOSED))
    broken = replace(found[0].target, proto=Proto.UDP, port=udp)
    found.append(Probe(sources[0], broken, Way.DATAGRAM, Expected.CLOSED))
    trial = ProbeRun(found)
    targets = {one.target.address for one in found}
    with locked(node.path), staged(node.path, sources, targets) as inside:
        run_in(inside, lambda: trial.run(0.5))
    return trial.seen


@pytest.mark.parametrize("how", ["down", "audit"])
def test_a_wall_that_drops_nothing_is_disproved(node: Guarded, how: str) -> None:
    """Whatever status says about itself, packets come through."""
    rank = node.rank()
    rank.open("tcp", "0.0.0.0", 29500)
    rank.open("udp", "0.0.0.0", 5000)
    if how == "audit":
        node.config.write_text("mode = 'audit'\n" + PEERS)
        node.ask("reload")
    else:
        node.ask("down")
    answer = proved(node, status=7)
    assert {("closed", "open", "different")} == fates(answer, 29500) == fates(answer, 5000)
    assert not answer.as_expected
    assert how == answer.mode


@contextlib.contextmanager
def frozen(node: Guarded) -> Iterator[Guarded]:
    """The daemon is killed, and somebody answers as it did last: nothing mends the wall."""
    last = node.ask("status")
    node.stop(signal.SIGKILL)
    with served(ControlServer(node.runtime / "control.sock", lambda *_: last)):
        yield node


@pytest.mark.parametrize(
    "damage",
    [
        "delete element inet vllmwall walled_any4 { tcp . 29500 }",
        "delete table inet vllmwall",
        "insert rule inet vllmwall input tcp dport 29500 accept",
        "add element inet vllmwall peers4 { 198.51.100.0/24 }",
    ],
)
def test_a_hole_in_the_table_is_found_at_that_port_alone(node: Guarded, damage: str) -> None:
    """The table is not asked, it is probe."""
    rank = node.rank()
    rank.open("tcp", "0.0.0.0", 29500)
    rank.open("udp", "0.0.0.0", 5000)
    node.ask("reload")
    with frozen(node):
        node.lab.node.run(["nft", damage])
        answer = proved(node, status=7)
    assert {("closed", "open", "different")} == fates(answer, 29500)
    everything = "table " in damage or "peers" in damage
    assert ({"different"} if everything else {"as expected"}) == {
        one.outcome for one in probes(answer, 5000)
    }


def test_a_wall_that_closes_the_api_is_disproved(node: Guarded) -> None:
    """And it is said who closes it."""
    node.server(8000).open("tcp", "0.0.0.0", 8000)
    node.ask("reload")
    with frozen(node):
        node.lab.node.run(["nft", "add element inet vllmwall walled_any4 { tcp . 8000 }"])
        node.lab.node.run(["nft", "delete element inet vllmwall any4 { tcp . 8000 }"])
        answer = proved(node, status=7)
    assert {("open", "closed", "different")} == fates(answer, 8000)
    assert ["by vllmwall"] == [one.by for one in probes(answer, 8000)]


OTHER = "add table inet other; add chain inet other c { type filter hook %s priority %s; }; "


@pytest.mark.parametrize("verdict", ["drop", "reject", "reject with tcp reset"])
def test_an_api_that_another_firewall_closes_is_told_from_one_that_we_close(
    node: Guarded, verdict: str
) -> None:
    """Its name is among the surroundings."""
    node.server(8000).open("tcp", "0.0.0.0", 8000)
    node.ask("reload")
    rule = f"add rule inet other c meta l4proto tcp tcp dport 8000 {verdict}"
    node.lab.node.run(["nft", OTHER % ("input", 0) + rule])
    answer = proved(node, status=7)
    assert {("open", "closed", "different")} == fates(answer, 8000)
    assert "not by vllmwall" in probes(answer, 8000)[0].by
    assert any("inet other c (input)" in line for line in answer.namespaces[0].surroundings)


def test_what_another_firewall_closes_before_us_is_closed_by_whom_unknown(node: Guarded) -> None:
    """Packets to that address come through, so the silence means something."""
    node.rank().open("tcp", "0.0.0.0", 29500)
    node.ask("reload")
    rule = "add rule inet other c tcp dport 29500 drop"
    node.lab.node.run(["nft", OTHER % ("prerouting", -300) + rule])
    answer = proved(node)
    assert CLOSED == fates(answer, 29500)
    assert ["by an unknown program"] == [one.by for one in probes(answer, 29500)]


@pytest.mark.parametrize(
    ("rule", "outcome", "words"),
    [
        (
            "tcp dport 8000 drop",
            "different",
            "by another firewall: netdev site c (what comes in by",
        ),
        ("ip saddr 0.0.0.0/1 tcp dport 9000 drop", "as expected", ""),
        ("tcp option maxseg size < 9 drop", "unproven", "was not evaluated: netdev site c"),
    ],
)
def test_what_a_chain_at_a_device_drops_is_found(
    node: Guarded, rule: str, outcome: str, words: str
) -> None:
    """Our packets come in by a device of our own: its rules are evaluated instead."""
    node.server(8000).open("tcp", "0.0.0.0", 8000)
    node.ask("reload")
    head = "table netdev site {\nchain c {\ntype filter hook ingress device eth0 priority 0\n"
    site = f"{head}{rule}\n}}\n}}\n"
    node.lab.node.run(["nft", "-f", "-"], stdin=site)
    is_closed = outcome == "different"
    found = node.lab.stranger.connect(node.lab.node.ipv4, 8000)
    assert {True: "timeout", False: "open"}[is_closed] == found
    answer = proved(node, status=0 if outcome == "as expected" else 7)
    assert {outcome} == {one.outcome.value for one in probes(answer, 8000)}
    assert all(words in one.by for one in probes(answer, 8000))


def test_silence_proves_nothing_where_no_packet_comes_through(node: Guarded) -> None:
    """A cable that is not plugged in must not look like a perfect wall."""
    rank = node.rank()
    rank.open("tcp", "0.0.0.0", 29500)
    rank.open("udp", "0.0.0.0", 5000)
    node.ask("reload")
    node.lab.node.run(["nft", OTHER % ("prerouting", -300) + "add rule inet other c drop"])
    answer = proved(node, status=7)
    unproven = {("closed", "no answer", "unproven")}
    assert unproven == fates(answer, 29500) == fates(answer, 5000)


def test_a_first_packet_that_is_lost_closes_nothing(node: Guarded) -> None:
    """A busy machine drops one now and then: it is sent anew, to an API too."""
    node.server(8000).open("tcp", "0.0.0.0", 8000)
    node.rank().open("tcp", "0.0.0.0", 29500)
    node.ask("reload")
    for port in (8000, 29500):
        first = f"add rule inet other c tcp dport {port} quota until 100 bytes drop"
        node.lab.node.run(["nft", OTHER % ("prerouting", -300) + first])
    answer = proved(node, "--peer", "192.0.2.2")
    assert OPEN == fates(answer, 8000)
    assert OPEN == fates(answer, 29500, "peer")


def test_a_listener_that_went_is_gone_and_no_failure(node: Guarded) -> None:
    """Jobs end while they are looked at."""
    rank = node.rank()
    rank.open("tcp", "0.0.0.0", 29500)
    rank.open("tcp", "0.0.0.0", 29501)
    server = node.server(8000)
    server.open("tcp", "0.0.0.0", 8000)
    node.ask("reload")
    with frozen(node):
        rank.close("tcp", "0.0.0.0", 29500)
        server.kill()
        answer = proved(node)
    assert {"gone"} == {one.outcome for port in (29500, 8000) for one in probes(answer, port)}
    assert CLOSED == fates(answer, 29501)


def test_a_failsafe_port_stays_reachable(node: Guarded) -> None:
    """Where something listens, whoever it belongs to; one that others close is not our doing."""
    node.bystander().open("tcp", "0.0.0.0", 22)
    node.rank().open("tcp", "0.0.0.0", 29500)
    node.ask("reload")
    assert {("not closed by vllmwall", "open", "as expected")} == fates(proved(node), 22)
    rule = "add rule inet other c meta l4proto tcp tcp dport 22 drop"
    node.lab.node.run(["nft", OTHER % ("input", 0) + rule])
    assert {("not closed by vllmwall", "closed", "as expected")} == fates(proved(node), 22)


def test_a_wall_that_closes_a_failsafe_port_is_disproved(node: Guarded) -> None:
    """The operator's own way in."""
    node.bystander().open("tcp", "0.0.0.0", 22)
    node.ask("reload")
    with frozen(node):
        node.lab.node.run(["nft", "add element inet vllmwall walled_any4 { tcp . 22 }"])
        answer = proved(node, status=7)
    assert {("not closed by vllmwall", "closed", "different")} == fates(answer, 22)


def test_a_listener_in_a_container_is_tried_there(lab: Lab, tmp_path: Path) -> None:
    """With the cable into its own network namespace."""
    box = copy.copy(lab)
    box.node = lab.host("box", "192.0.2.50", "2001:db8::50")
    with guarded(lab, tmp_path, arguments=("--only-namespace", box.node.path)) as node:
        Guarded(box, tmp_path / "box").rank().open("tcp", "::", 29500)
        node.rank().open("tcp", "0.0.0.0", 29501)
        node.ask("reload")
        before = traces(box.node)
        answer = proved(node)
        assert {"192.0.2.50", "2001:db8::50"} == {one.address for one in probes(answer, 29500)}
        assert CLOSED == fates(answer, 29500) == fates(answer, 29501)
        assert before == traces(box.node)
