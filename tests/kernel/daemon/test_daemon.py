"""The daemon on a real node: what strangers, peers and the host get, whatever happens to it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guarded import PATIENCE, PEERS, Guarded, eventually, guarded
from tests.support.guarding import unit, wait_for_guard
from tests.support.lab import Lab
from vllmwall.api.errors import ControlError
from vllmwall.engine.event_keys import EventKey

TABLES_OF_OTHERS = """
table inet filter {
    chain input {
        type filter hook input priority filter; policy accept;
        tcp dport 9 drop
    }
}
table ip nat {
    chain prerouting {
        type nat hook prerouting priority dstnat; policy accept;
    }
}
table ip6 raw {
    set seen {
        type ipv6_addr
        flags timeout
        timeout 1h
    }
}
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as found:
        yield found


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(lab, tmp_path) as found:
        yield found


def stranger_gets(node: Guarded, port: int) -> set[str]:
    """What a stranger gets over both families."""
    stranger, target = node.lab.stranger, node.lab.node
    return {stranger.connect(address, port) for address in (target.ipv4, target.ipv6)}


def peer_gets(node: Guarded, port: int) -> set[str]:
    """What a peer gets over both families."""
    peer, target = node.lab.peer, node.lab.node
    return {peer.connect(address, port) for address in (target.ipv4, target.ipv6)}


def walled(node: Guarded, port: int) -> bool:
    return stranger_gets(node, port) == {"timeout"}


def rules_of_others(lab: Lab) -> str:
    """The rules of the node without our table."""
    names = ["inet filter", "ip nat", "ip6 raw"]
    return "".join(
        lab.node.run(["nft", "-a", "list", "table", *name.split()]).stdout for name in names
    )


def test_a_new_port_of_a_workload_is_closed_to_strangers_and_open_to_peers(node: Guarded) -> None:
    """Nobody chose the port; nobody has to."""
    node.rank().open("tcp", "::", 29500)
    eventually(lambda: walled(node, 29500), "the stranger is refused")
    assert {"open"} == peer_gets(node, 29500)
    assert "open" == node.lab.node.connect("192.0.2.1", 29500)


def test_a_workload_that_is_older_than_the_daemon_is_found(lab: Lab, tmp_path: Path) -> None:
    """Installing vllmwall guards what runs already."""
    node = Guarded(lab, tmp_path)
    node.rank().open("tcp", "::", 29500)
    assert {"open"} == stranger_gets(node, 29500)
    node.start()
    assert {"timeout"} == stranger_gets(node, 29500)
    node.stop()


def test_the_api_port_is_open_to_all_and_only_it(node: Guarded) -> None:
    """vLLM's security page: block everything but the API port."""
    server = node.server(8000)
    server.open("tcp", "0.0.0.0", 8000)
    server.open("tcp", "0.0.0.0", 8001)
    stranger, target = node.lab.stranger, node.lab.node.ipv4
    eventually(lambda: stranger.connect(target, 8001) == "timeout", "the other port is closed")
    assert "open" == stranger.connect(target, 8000)


def test_a_process_that_is_no_workload_is_never_restricted(node: Guarded) -> None:
    """Also on a port that a workload has just given up."""
    rank, other = node.rank(), node.bystander()
    rank.open("tcp", "::", 29500)
    eventually(lambda: walled(node, 29500), "the stranger is refused")
    rank.close("tcp", "::", 29500)
    other.open("tcp", "::", 29500)
    other.open("tcp", "::", 29501)
    eventually(lambda: stranger_gets(node, 29500) == {"open"}, "the port is free again")
    assert {"open"} == stranger_gets(node, 29501)


def test_udp_is_walled_too(node: Guarded) -> None:
    """UDP has no listen event; a full pass finds it."""
    node.rank().open("udp", "0.0.0.0", 5000)
    node.ask("reload")
    assert any("udp" in str(entry) for entry in listeners(node))
    assert ["active"] == [one["rule"] for one in listeners(node) if one["proto"] == "udp"]


def listeners(node: Guarded) -> list[dict[str, object]]:
    workloads = node.ask("status")["workloads"]
    return [one for workload in workloads for one in workload["listeners"]]  # type: ignore[attr-defined,index]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_wall_outlives_the_daemon_and_the_next_one_takes_it_over_without_a_gap(
    node: Guarded, number: signal.Signals
) -> None:
    """Stop, crash and upgrade leave the wall active; a hammer finds no gap at the restart."""
    node.rank().open("tcp", "::", 29500)
    eventually(lambda: walled(node, 29500), "the stranger is refused")
    done = threading.Event()
    got: list[str] = []

    def hammer() -> None:
        while not done.is_set():
            got.append(node.lab.stranger.connect("192.0.2.1", 29500, timeout=0.05))

    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        node.stop(number)
        assert {"timeout"} == stranger_gets(node, 29500)
        node.start()
        assert {"timeout"} == stranger_gets(node, 29500)
    finally:
        done.set()
        thread.join()
    assert len(got) > 5
    assert {"timeout"} == set(got)


def test_a_bad_configuration_changes_nothing(node: Guarded) -> None:
    """The last good wall stays, status says what is wrong, SIGHUP does not kill."""
    node.rank().open("tcp", "::", 29500)
    eventually(lambda: walled(node, 29500), "the stranger is refused")
    node.configure("[peers]\ncidrs = ['0.0.0.0/0']\nnonsense = 1\n")
    with pytest.raises(ControlError, match="nonsense"):
        node.ask("reload")
    node.signal(signal.SIGHUP)
    eventually(lambda: node.logged(EventKey.CONFIG_INVALID), "it is logged")
    assert {"timeout"} == stranger_gets(node, 29500)
    assert {"open"} == peer_gets(node, 29500)
    errors = node.ask("status")["config"]["error"]  # type: ignore[index]
    assert any("nonsense" in problem["key"] + problem["message"] for problem in errors)


def test_a_daemon_without_usable_configuration_ends_and_leaves_the_wall(node: Guarded) -> None:
    """A restart with a broken file must not open what was closed."""
    node.rank().open("tcp", "::", 29500)
    eventually(lambda: walled(node, 29500), "the stranger is refused")
    node.stop()
    node.configure("nonsense = 1\n")
    with pytest.raises(AssertionError, match="the daemon ended"):
        node.start()
    assert node.process is not None
    assert 2 == node.process.wait(timeout=PATIENCE)
    assert {"timeout"} == stranger_gets(node, 29500)


def test_reload_takes_new_peers(node: Guarded) -> None:
    """By SIGHUP as by command."""
    node.rank().open("tcp", "::", 29500)
    eventually(lambda: walled(node, 29500), "the stranger is refused")
    node.configure("[peers]\ncidrs = ['203.0.113.9/32', '2001:db8:bad::9/128']\n")
    node.signal(signal.SIGHUP)
    eventually(lambda: stranger_gets(node, 29500) == {"open"}, "the new peer is let in")
    assert {"timeout"} == peer_gets(node, 29500)


def test_plan_tells_what_a_reload_would_change_and_changes_nothing(node: Guarded) -> None:
    """The question comes before the reload, so it is about the file on disk."""
    node.rank().open("tcp", "::", 29500)
    eventually(lambda: walled(node, 29500), "the stranger is refused")
    assert not node.ask("plan")["changes"]
    node.configure("[peers]\ncidrs = ['203.0.113.9/32', '192.0.2.2/32']\n")
    [space] = node.ask("plan")["namespaces"]  # type: ignore[misc]
    change = {"audience": "peers", "add": ["203.0.113.9/32"], "remove": ["2001:db8::2/128"]}
    assert [change] == space["networks"]
    assert {"timeout"} == stranger_gets(node, 29500)
    node.configure("nonsense = 1\n")
    with pytest.raises(ControlError, match="nonsense"):
        node.ask("plan")


def test_a_peer_for_a_while_is_let_in_and_shut_out_again(node: Guarded) -> None:
    """``peers add --for``: the wall follows the clock, not the next reload."""
    node.rank().open("tcp", "::", 29500)
    eventually(lambda: walled(node, 29500), "the stranger is refused")
    node.ask("peers.add", networks=["203.0.113.9/32", "2001:db8:bad::9/128"], seconds=2)
    assert {"open"} == stranger_gets(node, 29500)
    eventually(lambda: walled(node, 29500), "the time is over")


def test_down_takes_the_wall_away_and_up_puts_it_back(node: Guarded) -> None:
    """Down holds over a restart of the daemon, until up."""
    node.rank().open("tcp", "::", 29500)
    eventually(lambda: walled(node, 29500), "the stranger is refused")
    node.ask("down")
    assert {"open"} == stranger_gets(node, 29500)
    assert "vllmwall" not in node.lab.node.run(["nft", "list", "tables"]).stdout
    node.stop()
    node.start()
    assert {"open"} == stranger_gets(node, 29500)
    assert "down" == node.ask("status")["mode"]
    node.ask("up")
    assert {"timeout"} == stranger_gets(node, 29500)


def test_the_rules_of_others_stay_byte_for_byte(lab: Lab, tmp_path: Path) -> None:
    """Up, change, reload and down touch nothing but our own table."""
    lab.node.run(["nft", "-f", "-"], stdin=TABLES_OF_OTHERS)
    before = rules_of_others(lab)
    with guarded(lab, tmp_path) as node:
        node.rank().open("tcp", "::", 29500)
        eventually(lambda: walled(node, 29500), "the stranger is refused")
        during = rules_of_others(lab)
        node.ask("reload")
        after_reload = rules_of_others(lab)
        node.ask("down")
    assert [before] * 3 == [during, after_reload, rules_of_others(lab)]


@pytest.mark.parametrize(
    "sabotage",
    [
        "flush table inet vllmwall",
        "flush ruleset",
        "delete table inet vllmwall",
        "flush map inet vllmwall any4",
        "insert rule inet vllmwall input accept",
    ],
)
def test_a_wall_that_somebody_breaks_is_whole_at_once_and_who_it_was_is_said(
    lab: Lab, tmp_path: Path, sabotage: str
) -> None:
    """Where the kernel knows no owner: heard, repaired, and named in log and status."""
    with guarded(lab, tmp_path, environment={"VLLMWALL_OWNER": "off"}) as node:
        node.rank().open("tcp", "::", 29500)
        eventually(lambda: walled(node, 29500), "the stranger is refused")
        node.lab.node.run(["nft", sabotage])
        eventually(lambda: named(node), "who did it is named", node.log)
        assert {"timeout"} == stranger_gets(node, 29500)
        status = node.ask("status")
        assert status["safe"]
        assert "nft" == status["daemon"]["modifications"][0]["command"]  # type: ignore[index]


def named(node: Guarded) -> list[dict[str, object]]:
    return node.logged(EventKey.TABLE_MODIFIED)


@pytest.mark.parametrize("sabotage", ["flush ruleset", "delete table inet vllmwall"])
def test_nobody_breaks_a_wall_that_is_owned(node: Guarded, sabotage: str) -> None:
    """The daemon's table belongs to it: other programs pass it over, or are refused."""
    if node.ask("status")["namespaces"][0]["protection"] != "owned":  # type: ignore[index]
        pytest.skip("this kernel knows no owner")
    node.rank().open("tcp", "::", 29500)
    eventually(lambda: walled(node, 29500), "the stranger is refused")
    with contextlib.suppress(subprocess.CalledProcessError):
        node.lab.node.run(["nft", sabotage])
    assert {"timeout"} == stranger_gets(node, 29500)
    assert [] == named(node)


def test_connections_of_a_stranger_end_when_the_wall_comes(lab: Lab, tmp_path: Path) -> None:
    """What was let in before the daemon started is reset, at once and at both ends."""
    with guarded(lab, tmp_path) as node:
        rank = node.rank()
        node.ask("down")
        rank.open("tcp", "0.0.0.0", 29501)
        address = lab.node.ipv4, 29501
        with lab.stranger.dial(*address) as stranger, lab.peer.dial(*address) as peer:
            node.ask("up")
            stranger.settimeout(5)
            with pytest.raises(ConnectionResetError):
                stranger.recv(1)
            peer.settimeout(0.2)
            with pytest.raises(TimeoutError):
                peer.recv(1)
        assert 1 == len(node.logged(EventKey.CONNECTIONS_RESET))


def test_audit_mode_drops_nothing_and_counts(node: Guarded) -> None:
    """A week of audit before the first drop."""
    node.config.write_text('mode = "audit"\n' + PEERS)
    node.ask("reload")
    node.rank().open("tcp", "::", 29500)
    eventually(lambda: [one["rule"] for one in listeners(node)] == ["active"], "the rule is active")
    assert {"open"} == stranger_gets(node, 29500)
    status = node.ask("status")
    assert "audit" == status["mode"]
    assert not status["safe"]
    assert status["namespaces"][0]["refused_packets"] > 0  # type: ignore[index]


def test_without_tracefs_the_daemon_polls_and_says_so(lab: Lab, tmp_path: Path) -> None:
    """A locked-down kernel costs latency, never correctness."""
    hide = "mount -t tmpfs none /sys/kernel"
    with guarded(lab, tmp_path, before=hide) as node:
        assert "poll" == node.ask("status")["daemon"]["events"]  # type: ignore[index]
        node.rank().open("tcp", "::", 29500)
        eventually(lambda: walled(node, 29500), "the stranger is refused")


def test_a_system_that_names_no_protocols_is_guarded(lab: Lab, tmp_path: Path) -> None:
    """A slim image without /etc/protocols: nft reads and prints numbers there."""
    hide = "mount --bind /dev/null /etc/protocols"
    with unit() as cgroup, guarded(lab, tmp_path, before=hide) as node:
        node.config.write_text("[host]\nlockdown = true\n" + PEERS)
        node.ask("reload")
        node.rank().open("tcp", lab.node.ipv4, 29500)
        node.rank(cgroup).open("udp", "0.0.0.0", 29501)
        wait_for_guard(node, cgroup)
        node.ask("bans.add", ssh_client="", networks=[lab.stranger.ipv4], force=True)
        eventually(lambda: len(listeners(node)) == 2, "both are found")
        assert {"active"} == {one["rule"] for one in listeners(node)}
        assert [] == node.ask("status")["problems"]
        assert "timeout" == lab.stranger.connect(lab.node.ipv4, 29500)
        assert "open" == lab.peer.connect(lab.node.ipv4, 29500)
        answer = node.ask("explain", sources=[lab.stranger.ipv4], target="29500")
        assert ["closed"] == [one["verdict"] for one in answer["answers"]]  # type: ignore[union-attr]
        node.configure(PEERS)
        node.ask("reload")  # out of lockdown the wall answers where nobody listens
        assert [] == node.ask("status")["problems"]


def test_a_workload_in_another_namespace_is_walled_there(lab: Lab, tmp_path: Path) -> None:
    """A container: the daemon sits outside and puts the wall inside."""
    outside = lab.host("outside", "192.0.2.77", "2001:db8::77")
    with guarded(lab, tmp_path, on=outside) as node:
        node.rank().open("tcp", "::", 29500)
        eventually(lambda: walled(node, 29500), "the stranger is refused")
        assert {"open"} == peer_gets(node, 29500)
        assert "vllmwall" not in outside.run(["nft", "list", "tables"]).stdout
        node.ask("down")
        assert {"open"} == stranger_gets(node, 29500)


def test_a_second_daemon_on_the_same_directory_refuses_to_start(node: Guarded) -> None:
    """Two daemons would undo each other's walls."""
    second = Guarded(node.lab, node.folder)
    second.log = node.folder / "second.log"
    assert second.launch().wait(timeout=PATIENCE) == 1
    assert second.logged(EventKey.ALREADY_RUNNING)
    assert node.ask("status")["safe"] is not None


def test_ready_is_sent_only_when_the_wall_is_applied(lab: Lab, tmp_path: Path) -> None:
    """READY=1 after the first pass, a STATUS line, and the watchdog fed by the loop itself."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(PATIENCE)
        node = Guarded(lab, tmp_path / "d", environment={"NOTIFY_SOCKET": str(path)})
        node.rank().open("tcp", "::", 29500)
        node.start()
        until(systemd, "READY=1\nSTATUS=1 workload, 1 listener guarded")
        assert {"timeout"} == stranger_gets(node, 29500)
        until(systemd, "WATCHDOG=1")
        node.signal(signal.SIGHUP)
        until(systemd, "RELOADING=1")
        node.stop()
        until(systemd, "STOPPING=1")


def until(systemd: socket.socket, start: str) -> None:
    """Read what systemd is told until a message starts so."""
    while not systemd.recv(4096).decode().startswith(start):
        pass


def test_no_secret_of_a_command_line_is_logged_or_shown(node: Guarded) -> None:
    """Command lines hold API keys."""
    script = node.folder / "vllm"
    node.server(8000).kill()
    argv = [str(script), "serve", "m", "--port", "8000", "--api-key", "sk-TOPSECRET"]
    program = node._program(argv, {**os.environ, "VLLM_API_KEY": "sk-TOPSECRET"})
    program.open("tcp", "0.0.0.0", 8000)
    eventually(lambda: listeners(node), "the listener is known")
    shown = json.dumps([node.ask(what) for what in ("status", "plan", "snapshot")])
    assert "TOPSECRET" not in shown + node.log.read_text()


def test_the_daemon_leaves_no_tracefs_instance_behind(lab: Lab, tmp_path: Path) -> None:
    """What it made for itself goes with it; the wall does not."""
    with guarded(lab, tmp_path) as node:
        assert node.trace_instance.is_dir()
    assert not node.trace_instance.exists()
