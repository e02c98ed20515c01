"""What `vllmwall prove` leaves behind (nothing) and whom it disturbs (nobody)."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guarded import PATIENCE, Guarded, eventually, guarded
from tests.support.lab import Host, Lab
from tests.support.proving import CLOSED, OPEN, command, fates, proved, traces

PEER = ("--peer", "192.0.2.2", "--peer", "2001:db8::2")
SLOWLY = ("--patience", "30")


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(lab, tmp_path) as found:
        found.rank().open("tcp", "::", 29500)
        found.ask("reload")
        yield found


def begun(node: Guarded, *arguments: str) -> subprocess.Popen[str]:
    """A proof that is in the middle of its tries."""
    process = subprocess.Popen(
        command(node.runtime / "control.sock", *SLOWLY, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    eventually(lambda: "vwprove" in shown(node.lab.node, "link"), "the cable is laid")
    wanted = "dport 225-240" if arguments else "link"
    eventually(lambda: wanted in shown(node.lab.node, "-6 rule") + "link", "and routed")
    return process


def shown(host: Host, what: str) -> str:
    return host.run(["ip", *what.split()]).stdout


def unacknowledged(connection: socket.socket) -> int:
    """Bytes that the other end has not confirmed."""
    return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def test_a_proof_leaves_nothing(node: Guarded) -> None:
    """No link, address, route, rule or setting of the node is other than before."""
    before = traces(node.lab.node)
    proved(node, *PEER)
    assert before == traces(node.lab.node)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_proof_that_is_stopped_leaves_nothing(node: Guarded, number: signal.Signals) -> None:
    """And is no success."""
    before = traces(node.lab.node)
    process = begun(node, *PEER)
    process.send_signal(number)
    eventually(lambda: before == traces(node.lab.node), "all is taken away")
    process.kill()
    process.communicate()


def test_a_proof_that_is_stopped_says_so_by_its_status(node: Guarded) -> None:
    """128 and the signal, as a shell says it, without waiting for what it waited for."""
    process = begun(node)
    process.terminate()
    assert 128 + signal.SIGTERM == process.wait(timeout=PATIENCE)
    assert "stopped" in process.communicate()[0]


def test_the_next_proof_takes_away_what_a_killed_one_left(node: Guarded) -> None:
    """The cable dies with the process; only rules can stay, and nobody's packets meet those."""
    before = traces(node.lab.node)
    process = begun(node, *PEER)
    process.kill()
    process.communicate()
    eventually(lambda: "vwprove" not in shown(node.lab.node, "link"), "the cable is gone")
    assert "dport 225-240" in shown(node.lab.node, "rule")
    assert {"open"} == {node.lab.peer.connect(a, 29500) for a in ("192.0.2.1", "2001:db8::1")}
    proved(node)
    assert before == traces(node.lab.node)


def test_an_error_in_the_middle_leaves_nothing(node: Guarded) -> None:
    """The table goes while packets are under way: then it cannot be read back."""
    before = traces(node.lab.node)
    broken = (
        "import vllmwall.inspect.prove.run as r, vllmwall.__main__ as c\n"
        "def fail(self, patience): raise OSError('no such thing')\n"
        "r.ProbeRun.run = fail\nc.main()"
    )
    arguments = command(node.runtime / "control.sock", *PEER)[3:]
    done = subprocess.run(
        [sys.executable, "-c", broken, *arguments], capture_output=True, text=True, check=False
    )
    assert (1, "vllmwall: no probes were sent: no such thing\n") == (done.returncode, done.stderr)
    assert before == traces(node.lab.node)


def test_two_proofs_do_not_take_each_others_things_away(node: Guarded) -> None:
    """The second says that it has to wait."""
    first = begun(node)
    second = subprocess.run(
        command(node.runtime / "control.sock"), capture_output=True, text=True, check=False
    )
    assert (1, True) == (second.returncode, "another `vllmwall prove`" in second.stderr)
    assert "vwprove" in shown(node.lab.node, "link")
    first.terminate()
    first.communicate()


def test_a_peers_own_connections_go_on_while_its_address_is_tried_from(node: Guarded) -> None:
    """New ones, old ones, and those that the node opens to the peer."""
    lab = node.lab
    old = lab.peer.dial("192.0.2.1", 29500)
    lab.peer.listen("0.0.0.0", 9000)
    process = begun(node, "--peer", "192.0.2.2", "--peer", "2001:db8::2")
    got = [lab.peer.connect(address, 29500) for address in ("192.0.2.1", "2001:db8::1")]
    got += [lab.node.connect("192.0.2.2", 9000), lab.node.udp("192.0.2.2", 9001)]
    assert ["open", "open", "open", "refused"] == got
    old.sendall(b"still here")
    eventually(lambda: unacknowledged(old) == 0, "the node has it")
    process.terminate()
    process.communicate()
    old.close()


def test_a_node_that_routes_by_source_answers_into_the_cable(node: Guarded) -> None:
    """A rule of the node's that catches all its answers would send them to the network."""
    node.bystander().open("tcp", "0.0.0.0", 22)
    run = node.lab.node.run
    for family, address in (("-4", "192.0.2.1"), ("-6", "2001:db8::1")):
        run(["ip", family, "route", "add", "blackhole", "default", "table", "100"])
        run(["ip", family, "rule", "add", "from", address, "lookup", "100", "priority", "50"])
    before = traces(node.lab.node)
    answer = proved(node, *PEER)
    assert OPEN == fates(answer, 29500, "peer")
    assert {"open"} == {seen for _, seen, _ in fates(answer, 22)}
    assert before == traces(node.lab.node)


def test_strict_filters_for_sources_let_the_tries_pass(node: Guarded) -> None:
    """rp_filter, and firewalld's like for IPv6, look at the way back."""
    node.lab.node.run(["sysctl", "-w", "net.ipv4.conf.all.rp_filter=1"])
    node.lab.node.run(["sysctl", "-w", "net.ipv4.conf.all.arp_ignore=2"])
    answer = proved(node, *PEER)
    assert CLOSED == fates(answer, 29500)
    assert OPEN == fates(answer, 29500, "peer")
    assert {"by vllmwall"} == {one.by for one in answer.probes if one.seen == "closed"}


def test_a_peer_that_the_configuration_does_not_name_is_a_stranger(node: Guarded) -> None:
    """And an address of the node's own is nobody to try from."""
    answer = proved(node, "--peer", "192.0.2.99", "--peer", "192.0.2.1")
    assert CLOSED == fates(answer, 29500, "peer")
    problems = "\n".join(answer.problems)
    assert "192.0.2.99 is not a peer" in problems
    assert "192.0.2.1 is an address of this node" in problems
    assert {"192.0.2.99"} == {one.source for one in answer.probes if one.source_kind == "peer"}


def test_who_is_not_root_is_told(node: Guarded) -> None:
    """Before anything is made."""
    program = (
        "import os, vllmwall.cli.prove, vllmwall.__main__ as c\n"
        "os.setgroups([]); os.setuid(65534); c.main()"
    )
    arguments = command(node.runtime / "control.sock")[3:]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert 4 == done.returncode
    assert "Run this as root." in done.stderr


def test_the_table_fits_a_terminal(node: Guarded) -> None:
    """80 columns, ports that fare alike in one row, and no colour in a pipe."""
    rank = node.rank()
    for port in range(40000, 40013):
        rank.open("tcp", "192.0.2.1", port)
    node.ask("reload")
    script = f"stty cols 80; exec {' '.join(command(node.runtime / 'control.sock', *PEER))}"
    done = subprocess.run(
        ["script", "-qec", script, "/dev/null"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TERM": "dumb"},
    )
    lines = done.stdout.splitlines()
    assert 0 == done.returncode, done.stdout
    assert lines[0].startswith("All as expected")
    assert 80 >= max(map(len, lines))
    assert 2 == sum("(13)" in line for line in lines), done.stdout
    assert "✓" in done.stdout
    assert "\x1b" not in done.stdout
