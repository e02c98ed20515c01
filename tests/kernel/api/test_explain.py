"""`vllmwall explain` as an operator runs it, beside real packets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.cgroups import cgroup, inside
from tests.support.explaining import explain, vllmwall
from tests.support.guarded import PEERS, Guarded, guarded
from tests.support.lab import NODE, PEER, STRANGER, Host, Lab
from tests.support.walls import entry, wall
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.model import Guard, Limits, Mode, Proto

POLICY = "[policy]\ntcpstore = 'node'\nmetrics = ['monitoring', 'peers']\n"
GROUPS = "[groups]\nmonitoring = ['198.51.100.0/24']\n"
LISTEN = """
import os, socket, sys, time
made = socket.create_server(("", int(sys.argv[1])))
print(os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def node(shared_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A vLLM server with an API and an internal port, a rank, and something that is neither."""
    with guarded(shared_lab, tmp_path_factory.mktemp("explain") / "node") as found:
        found.configure(PEERS + POLICY + GROUPS)
        found.ask("reload")
        server = found.server(8000)
        server.open("tcp", "0.0.0.0", 8000)
        server.open("tcp", "::", 29600)
        rank = found.rank()
        rank.open("tcp", NODE[0], 29700)
        rank.open("udp", "0.0.0.0", 29800)
        rank.open("tcp", "127.0.0.1", 29900)
        found.bystander().open("tcp", "0.0.0.0", 7000)
        found.settled()
        yield found


def listening(host: Host, port: int, folder: Path | None = None) -> str:
    """A process that listens, started in a cgroup; its pid."""
    argv = [sys.executable, "-c", LISTEN, str(port)]
    process = host.popen(inside(folder, argv) if folder else argv)
    assert process.stdout is not None
    return process.stdout.readline()


def connection(host: Host, address: str, port: int) -> str:
    """The result of a real connection: open or closed."""
    return "open" if host.connect(address, port) == "open" else "closed"


@pytest.mark.parametrize("family", [0, 1])
@pytest.mark.parametrize("who", ["peer", "stranger"])
@pytest.mark.parametrize("port", [8000, 29600, 29700, 7000, 29900])
def test_what_it_says_is_what_a_connection_finds(
    node: Guarded, who: str, port: int, family: int
) -> None:
    """Peers and strangers, both families, public, internal, exact, loopback and no workload's."""
    host = node.lab.peer if who == "peer" else node.lab.stranger
    source = (PEER if who == "peer" else STRANGER)[family]
    said = explain(node, source, str(port), "--to", NODE[family]).verdict
    assert connection(host, NODE[family], port) == said


def test_udp_has_a_verdict_of_its_own(node: Guarded) -> None:
    """The port has no TCP listener: UDP is meant without a word."""
    for source, verdict in ((PEER[0], "open"), (STRANGER[0], "closed")):
        (answer,) = explain(node, source, "29800").answers
        assert (Proto.UDP, verdict) == (answer.proto, answer.verdict)


def test_it_names_what_decides(node: Guarded) -> None:
    """The rule, the elements, the socket, the workload, the audience's line and the peer's."""
    (answer,) = explain(node, PEER[0], "29700").answers
    assert "open" == answer.verdict
    assert answer.decided is not None
    assert ("trusted4", PEER[0]) == (answer.decided.set, answer.decided.element)
    assert ["trusted4"] == [step.set for step in answer.way]
    assert answer.socket is not None
    assert answer.purpose is not None
    assert (NODE[0], 29700) == (answer.socket.addr, answer.socket.port)
    assert answer.purpose.root_pid in answer.socket.pids
    assert "by default" in answer.purpose.audience_from
    (source,) = answer.source_is
    assert ("peers", "static", f"{PEER[0]}/32") == (
        source.audience,
        source.kind,
        source.network,
    )
    assert f"{node.config}:4" == source.where


def test_workloads_can_be_asked_about(node: Guarded) -> None:
    """One answer a listener; the words peer and stranger stand for any of them."""
    both = explain(node, "stranger", "tiny").answers
    assert {8000: "open", 29600: "closed"} == {one.port: one.verdict for one in both}
    assert "open" == explain(node, "peer", "tiny").verdict
    done = vllmwall(node, "stranger", "nosuch")
    assert 1 == done.returncode
    assert "no listener matches 'nosuch'" in done.stderr
    assert "Workloads that listen: tiny, torch." in done.stderr


@pytest.mark.parametrize(
    ("source", "port", "verdict", "reason"),
    [
        (PEER[0], "29600", "open", f"the source is a trusted peer: {PEER[0]}"),
        (PEER[0], "8000", "open", f"the source is a trusted peer: {PEER[0]}"),
        (STRANGER[0], "29600", "closed", "the source is not in its audience: peers"),
        (STRANGER[0], "8000", "open", "everyone may connect: its audience is public"),
        (STRANGER[0], "7000", "open", "the wall has no rule for this port"),
        (NODE[0], "29600", "open", "the packet comes from this host itself, over lo"),
    ],
)
def test_the_reason_is_true_in_the_default_configuration(
    node: Guarded, source: str, port: str, verdict: str, reason: str
) -> None:
    """For peers too, which the wall accepts before it looks a port up."""
    answers = explain(node, source, port, "--to", NODE[0]).answers
    assert [(verdict, reason)] == [(one.verdict, one.reason) for one in answers]


def test_the_command_line_shows_the_answer_of_the_daemon(node: Guarded) -> None:
    """Nothing is decided after the daemon has answered."""
    shown = json.loads(vllmwall(node, "stranger", "29600", "--json").stdout)
    asked = {"sources": ["stranger"], "target": "29600", "firewalls": []}
    answered = node.ask("explain", **asked)
    for same in ("verdict", "total", "namespaces", "answers", "problems"):
        assert answered[same] == shown[same]


def test_another_address_of_the_node_is_another_question(node: Guarded) -> None:
    """A socket for one address has a rule for that one, and none for the rest."""
    (answer,) = explain(node, STRANGER[0], "29700", "--to", "192.0.2.99").answers
    assert ("192.0.2.99", "closed", None) == (str(answer.address), answer.verdict, answer.socket)
    assert "no socket listens" in answer.reason
    assert "walled_addr4" not in [step.set for step in answer.way]
    (answer,) = explain(node, STRANGER[0], "29700").answers
    assert (NODE[0], "drop") == (str(answer.address), answer.wall)
    assert "walled_addr4" in [step.set for step in answer.way]


def test_what_is_bound_to_loopback_is_closed_to_other_hosts(node: Guarded) -> None:
    """The wall has no rule for it and needs none; from the host itself it is open."""
    (answer,) = explain(node, PEER[0], "29900").answers
    assert "closed" == answer.verdict
    assert "bound to loopback" in answer.reason
    assert "open" == explain(node, "127.0.0.1", "29900").verdict


def test_one_namespace_can_be_asked_about(node: Guarded) -> None:
    """By the name that `status` gives it; another name is refused with those that there are."""
    name = Path(node.lab.node.path).name
    (answer,) = explain(node, PEER[0], "29700", "--namespace", name).answers
    assert (name, "open") == (answer.namespace, answer.verdict)
    done = vllmwall(node, PEER[0], "29700", "--namespace", "elsewhere")
    assert 1 == done.returncode
    assert "no network namespace 'elsewhere' has a process in it" in done.stderr
    assert f"Use one of these: {name}." in done.stderr


def test_a_socket_for_each_family_is_one_door(node: Guarded) -> None:
    """As sshd, nginx and Docker's proxy have it: the other family's socket closes nothing."""
    node.lab.node.listen("0.0.0.0", 7100)
    node.lab.node.listen("::", 7100, v6only=True)
    for source, address in zip(STRANGER, NODE, strict=True):
        (answer,) = explain(node, source, "7100").answers
        assert ("open", connection(node.lab.stranger, address, 7100)) == (answer.verdict, "open")


def test_a_port_that_is_handed_on_to_a_container_is_named(node: Guarded) -> None:
    """NAT takes such a packet before the wall here sees it, so what is said of here is not all."""
    there = "-p tcp --dport 7000 -j DNAT --to-destination 172.17.0.2:7000"
    rules = f"*nat\n:DOCKER -\n-A DOCKER {there}\n-A PREROUTING -j DOCKER\nCOMMIT\n"
    node.lab.node.run(["iptables-restore"], stdin=rules)
    try:
        said = explain(node, STRANGER[0], "7000")
        assert () == explain(node, STRANGER[0], "8000").problems
    finally:
        node.lab.node.run(["nft", "delete", "table", "ip", "nat"])
    (problem,), (answer,) = said.problems, said.answers
    assert "Docker forwards tcp port 7000 to 172.17.0.2:7000" in problem
    assert ("unknown", "unknown") == (said.verdict, answer.verdict)


def test_a_ban_is_named_and_decides(node: Guarded) -> None:
    """At the public API too, with the reason that was given."""
    node.ask("bans.add", ssh_client="", networks=["198.51.100.66/32"], reason="scans")
    try:
        (answer,) = explain(node, "198.51.100.66", "8000", "--to", NODE[0]).answers
    finally:
        node.ask("bans.remove", networks=["198.51.100.66/32"])
    assert ("closed", "the source is banned") == (answer.verdict, answer.reason)
    assert ("banned4", "198.51.100.66") == (answer.way[0].set, answer.way[0].element)
    kinds = {one.kind: one.name for one in answer.source_is}
    assert {"ban": "scans", "group": "monitoring"} == kinds


def test_a_port_at_which_nobody_listens_is_closed(node: Guarded) -> None:
    """Also where the wall would let the packet through."""
    (answer,) = explain(node, STRANGER[0], "81", "--to", NODE[0]).answers
    assert ("closed", None) == (answer.verdict, answer.socket)
    assert "no socket listens" in answer.reason


def test_other_programs_chains_are_named_and_judged(node: Guarded) -> None:
    """One that drops all closes the API; it is named with its policy."""
    chain = "chain ip other c { type filter hook input priority 5; policy drop; }"
    node.lab.node.run(["nft", f"add table ip other; add {chain}"])
    try:
        answer = explain(node, "stranger", "8000")
    finally:
        node.lab.node.run(["nft", "delete table ip other"])
    assert "closed" == answer.verdict
    found = [(one.table, one.hook, one.priority, one.policy) for one in answer.hooks]
    assert [("ip other", "input", 5, "drop")] == found


def test_where_nft_crashes_other_programs_rules_are_unknown(node: Guarded, tmp_path: Path) -> None:
    """Their chains are listed without the nft command; what they do to the packet is not known."""
    (tmp_path / "nft").write_text("#!/bin/sh\nkill -SEGV $$\n")
    (tmp_path / "nft").chmod(0o755)
    node.lab.node.run(["nft", "add table ip other; add chain ip other c "
                       "{ type filter hook input priority 5; }"])  # fmt: skip
    try:
        done = vllmwall(node, "stranger", "8000", path=str(tmp_path))
    finally:
        node.lab.node.run(["nft", "delete table ip other"])
    assert "ip other" in done.stdout
    assert "the rules of other firewalls cannot be read: nft ended with -11" in done.stdout
    assert "UNKNOWN  tcp 203.0.113.9 to 192.0.2.1:8000" in done.stdout
    assert 9 == done.returncode


def test_it_fits_80_columns(node: Guarded) -> None:
    """On a terminal of that width."""
    words = [sys.executable, "-m", "vllmwall", "--socket", str(node.runtime / "control.sock")]
    script = f"stty cols 80; {' '.join(words)} explain stranger 29600 --way"
    shown = subprocess.run(
        ["script", "-qec", script, "/dev/null"],
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert "CLOSED" in shown
    assert max(len(line.rstrip("\r")) for line in shown.split("\n")) <= 80


def test_many_answers_come_in_parts_and_all_of_them(node: Guarded) -> None:
    """A role has hundreds of listeners; the daemon is asked about a few at a time."""
    rank = node.rank()
    ports = range(31000, 31020)
    for port in ports:
        rank.open("tcp", "::", port)
    node.settled()
    answer = explain(node, "stranger", "torch", "--proto", "tcp")
    assert {(port, family) for port in ports for family in (4, 6)} <= {
        (one.port, one.source.version) for one in answer.answers
    }
    assert answer.total == len(answer.answers)
    part = node.ask("explain", sources=["stranger"], target="torch")
    assert len(part["answers"]) < answer.total  # type: ignore[arg-type]
    rank.kill()
    node.settled()


def test_the_socket_s_birth_counts_not_where_its_process_is(
    lab: Lab, backend: Nftables, tmp_path: Path
) -> None:
    """A guard holds what was made in its cgroup; without a daemon the same is said."""
    with cgroup(f"/vw-explain-{os.getpid()}") as born:
        guard = Guard(1, born.stat().st_ino, f"/{born.name}")
        backend.apply(lab.node.path, replace(wall(lab.node, []), guards=frozenset({guard})), None)
        pid = listening(lab.node, 6000, born)
        (born.parent / "cgroup.procs").write_text(pid)
        found = Guarded(lab, tmp_path / "none")
        (answer,) = explain(found, STRANGER[0], "6000").answers
        assert "closed" == connection(lab.stranger, NODE[0], 6000) == answer.verdict
        assert "guarded" in answer.reason
        assert "guarded_1" in [step.set for step in answer.way]
        (answer,) = explain(found, PEER[0], "6000").answers
        assert "open" == connection(lab.peer, NODE[0], 6000) == answer.verdict
        backend.remove(lab.node.path)


@pytest.mark.parametrize(
    "asked",
    [
        (6003, {"failsafe": frozenset({6003})}, "open", "it is a failsafe port"),
        (6003, {"lockdown": True}, "closed", "host.lockdown closes every port"),
        (
            6003,
            {"lockdown": True, "opened": frozenset({(Proto.TCP, 6003)})},
            "open",
            "host.open leaves this port open",
        ),
        (6004, {"limits": Limits(1, 1, None)}, "depends", "a limit decides"),
        (6005, {"mode": Mode.AUDIT}, "open", "audit mode only counts what enforce mode"),
    ],
)
def test_the_reason_is_that_of_the_rule_in_the_kernel(
    lab: Lab, backend: Nftables, tmp_path: Path, asked: tuple[int, dict[str, object], str, str]
) -> None:
    """Failsafe ports, lockdown and what it leaves open, limits, audit mode."""
    port, change, verdict, reason = asked
    listening(lab.node, port)
    entries = [entry(6005, "peers"), replace(entry(6004, "public"), limited="limits" in change)]
    made = replace(wall(lab.node, entries), **change)  # type: ignore[arg-type]
    backend.apply(lab.node.path, made, None)
    (answer,) = explain(Guarded(lab, tmp_path / "none"), STRANGER[0], str(port)).answers
    backend.remove(lab.node.path)
    assert (verdict, reason) == (answer.verdict, answer.reason[: len(reason)])


def test_without_a_daemon_the_table_in_the_kernel_answers(
    lab: Lab, backend: Nftables, tmp_path: Path
) -> None:
    """It says that no daemon answered; a wall that is not there is open, and said so."""
    listening(lab.node, 6001)
    found = Guarded(lab, tmp_path / "none")
    backend.apply(lab.node.path, wall(lab.node, [entry(6001, "peers")]), None)
    answer = explain(found, STRANGER[0], "6001")
    assert (False, "closed") == (answer.daemon, answer.verdict)
    assert "no daemon answers" in json.dumps(answer.problems)
    backend.remove(lab.node.path)
    (answer_now,) = explain(found, STRANGER[0], "6001").answers
    assert ("open", "none") == (answer_now.verdict, answer_now.wall)
    assert "no wall is active" in answer_now.reason
