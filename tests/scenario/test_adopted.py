"""The first wall of a job that runs: its private connections go on, strangers' are cut.

Nothing later adopts anything: not a daemon that starts again, not a wall that was gone for a while.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.explaining import explain
from tests.support.guarded import RANK, Guarded, Program
from tests.support.hammer import hammering
from tests.support.lab import Host, Lab
from tests.support.severing import dialled, lives
from tests.support.waiting import eventually
from vllmwall.engine.event_keys import EventKey

STORE, LATER, WEB = 29500, 43211, 8080
HERE, PUBLIC_HERE = "10.0.0.1", "192.0.2.1"
OWN = "[[workload]]\nname = 'own'\nmatch.argv = '*own-web*'\n"
AUDIT = "mode = 'audit'\n"


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


@pytest.fixture
def worker(lab: Lab) -> Host:
    """The other node of the job, in a private network; the configuration does not name it."""
    lab.node.add_address(HERE)
    return lab.host("worker", "10.0.0.2")


@pytest.fixture
def neighbour(lab: Lab, worker: Host) -> Host:
    """A host of the same network that is no part of the job."""
    return lab.host("neighbour", "10.0.0.9")


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    """A node without peers, before its first daemon."""
    found = Guarded(lab, tmp_path / "node", arguments=("--state-dir", str(tmp_path / "state")))
    configure(found)
    yield found
    if found.process is not None and found.process.poll() is None:
        found.stop()


@pytest.fixture
def job(node: Guarded) -> Program:
    """A rank with a store, as long as the test."""
    rank = node.rank()
    rank.echo("0.0.0.0", STORE)
    return rank


def configure(node: Guarded, text: str = "", main: str = "") -> None:
    """Write a configuration without peers; ``main`` are keys outside of tables."""
    node.config.write_text(f"{main}[daemon]\nfull_pass_seconds = 600\n{OWN}{text}")
    node.config.chmod(0o644)


def web(node: Guarded, port: int = WEB) -> Program:
    """A web server whose command line names no port: nothing proves that it is an API."""
    script = node.folder / "own-web"
    script.write_text(f"#!{sys.executable}\n{RANK}")
    script.chmod(0o755)
    program = node._program([str(script), "--fast"], {**os.environ})
    program.echo("0.0.0.0", port)
    return program


def gets(host: Host, port: int = STORE, address: str = HERE) -> str:
    return host.connect(address, port)


def adopted(node: Guarded, which: str = "adopted") -> list[tuple[str, list[str], list[int]]]:
    """Of each workload its name, the hosts, and the ports that stay open."""
    found = node.ask("adopted.list")[which]
    assert isinstance(found, list)
    return [
        (one["workload"], [host["address"] for host in one["hosts"]], one["open_ports"])
        for one in found
    ]


def problems(node: Guarded) -> list[str]:
    found = node.ask("status")["problems"]
    assert isinstance(found, list)
    return found


JOBS = [("torch", ["10.0.0.2"], [])]


def test_the_job_goes_on_and_the_stranger_is_cut(
    node: Guarded, job: Program, worker: Host, held: ExitStack
) -> None:
    """The same connection, a new one, and a new port; for the worker alone."""
    mine = dialled(held, worker, HERE, STORE)
    theirs = dialled(held, node.lab.stranger, PUBLIC_HERE, STORE)
    node.start()
    assert lives(mine)
    assert not lives(theirs)
    assert JOBS == adopted(node)
    assert "open" == gets(worker)
    job.open("tcp", "0.0.0.0", LATER)
    eventually(lambda: gets(worker, LATER) == "open", "the new port is open to the job")
    assert {"timeout"} == {gets(node.lab.stranger, port) for port in (STORE, LATER)}
    first, *rest = problems(node)
    assert "torch (pid " in first
    assert "adopted 1 host" in first
    assert "10.0.0.2. They may connect until the workload ends." in first
    assert "vllmwall adopted keep torch" in first
    assert "vllmwall adopted drop torch" in first
    assert "203.0.113.9 (a public address)" in rest[0]
    shown = node.command("status").stdout.splitlines()
    assert shown[1].startswith("! torch (pid ")
    [event] = node.logged(EventKey.ADOPTED)
    assert (["10.0.0.2"], ["203.0.113.9 (public)"]) == (event["hosts"], event["refused"])
    (answer,) = explain(node, "10.0.0.2", str(STORE)).answers
    assert "open" == answer.verdict
    assert "in its audience, adopted or peers" in answer.reason
    assert ["adopted"] == [one.kind for one in answer.source_is]
    [metric] = [
        line for line in metrics(node).splitlines() if line.startswith("vllmwall_adopted_hosts ")
    ]
    assert "vllmwall_adopted_hosts 1.0" == metric


@pytest.mark.parametrize("named", [{}, {"LOCAL_WORLD_SIZE": "1"}, {"MASTER_ADDR": "10.0.0.2"}])
def test_who_joins_a_job_later_is_named_with_the_command(
    node: Guarded, worker: Host, neighbour: Host, held: ExitStack, named: dict[str, str]
) -> None:
    """Without peers it would be blocked. The command lets it in, and the line goes."""
    node.lab.node.run(["ip", "address", "add", "10.0.0.5/24", "dev", "eth0"])
    rank = node._program([sys.executable, "-c", RANK], {**node.rank_environment(), **named})
    rank.echo("0.0.0.0", STORE)
    if not named:
        dialled(held, worker, HERE, STORE)
    node.start()
    node.wait_for_rule(STORE)
    [line] = [one for one in problems(node) if "hosts that join it are blocked" in one]
    assert "hosts that join jobs are blocked" in str(node.ask("status")["verdict"])
    assert "timeout" == gets(neighbour)
    if "LOCAL_WORLD_SIZE" not in named:
        assert "vllmwall peers add 10.0.0.0/24 --save" in line
    assert node.command("peers", "add", "10.0.0.0/24").returncode == 0
    assert "open" == gets(neighbour)
    assert not any("hosts that join" in one for one in problems(node))


def metrics(node: Guarded) -> str:
    """As Prometheus reads them from a file."""
    file = node.folder / "vllmwall.prom"
    configure(node, f"[metrics]\ntextfile = '{file}'\n")
    node.ask("reload")
    eventually(file.exists, "the metrics are written")
    return file.read_text()


def test_a_hammer_never_gets_in_and_the_job_never_stops(
    node: Guarded, job: Program, worker: Host, held: ExitStack
) -> None:
    """From a public address: over restart, kill -9, reload, drop and the end of the job."""
    mine = dialled(held, worker, HERE, STORE)
    node.start()
    with hammering(node.lab.stranger, "tcp", (PUBLIC_HERE, STORE)) as attempts:
        for number in (signal.SIGTERM, signal.SIGKILL):
            node.stop(number)
            assert lives(mine)
            node.start()
            assert lives(mine)
            assert "open" == gets(worker)
            assert JOBS == adopted(node)
        node.ask("reload")
        assert lives(mine)
        assert 0 == node.command("adopted", "drop", "torch").returncode
        assert not lives(mine)
        assert "timeout" == gets(worker)
        job.kill()
        eventually(lambda: not node.listeners(), "the job has ended")
    assert attempts.tried > 100
    assert 0 == attempts.opened


def test_it_ends_with_the_workload(
    node: Guarded, job: Program, worker: Host, held: ExitStack
) -> None:
    """The next job of the same name, at the same port, adopts nothing: it started under a wall."""
    dialled(held, worker, HERE, STORE)
    node.start()
    job.kill()
    eventually(lambda: adopted(node) == [], "it ended")
    eventually(lambda: node.logged(EventKey.ADOPTED_ENDED), "the log says so")
    again = node.rank()
    again.open("tcp", "0.0.0.0", STORE)
    node.wait_for_rule(STORE)
    assert "timeout" == gets(worker)
    node.stop(signal.SIGKILL)
    node.start()
    assert ([], "timeout") == (adopted(node), gets(worker))


def without_a_wall(node: Guarded, neighbour: Host, held: ExitStack) -> list[socket.socket]:
    """Connections from a private address that were made while our table was gone."""
    node.stop(signal.SIGKILL)
    node.lab.node.run(["nft", "delete", "table", "inet", "vllmwall"])
    return [dialled(held, neighbour, HERE, port) for port in (STORE, LATER)]


@pytest.mark.parametrize("left", ["whole", "damaged", "lost"])
@pytest.mark.usefixtures("job")
def test_nothing_is_adopted_a_second_time(
    node: Guarded, worker: Host, neighbour: Host, held: ExitStack, left: str
) -> None:
    """The daemon is killed, its table removed, and a neighbour connects before the next one. Where
    our file is lost, the saved wall says that this node was guarded before."""
    node.rank().echo("0.0.0.0", LATER)  # a job that had no connections at the first wall
    mine = dialled(held, worker, HERE, STORE)
    node.start()
    assert JOBS == adopted(node)
    theirs = without_a_wall(node, neighbour, held)
    file = node.runtime / "adopted.json"
    if left == "damaged":
        file.write_text("{}")
    elif left != "whole":
        file.unlink()
    node.start()
    assert [False, False] == [lives(one) for one in theirs]
    assert {"timeout"} == {gets(neighbour, port) for port in (STORE, LATER)}
    assert (left == "whole") == lives(mine)
    assert (JOBS if left == "whole" else []) == adopted(node)


def test_an_active_wall_says_that_it_is_not_the_first(
    node: Guarded, job: Program, worker: Host, held: ExitStack
) -> None:
    """As after an upgrade from a version that wrote no such file."""
    node.arguments = ()
    configure(node, "[peers]\ncidrs = ['10.0.0.2']\n")
    node.start()
    mine = dialled(held, worker, HERE, STORE)
    node.stop()
    (node.runtime / "adopted.json").unlink()
    configure(node)
    node.start()
    assert not lives(mine)
    assert [] == adopted(node)


def test_off_means_that_nothing_is_adopted(
    node: Guarded, job: Program, worker: Host, held: ExitStack
) -> None:
    """Nor later, when it is on."""
    mine = dialled(held, worker, HERE, STORE)
    configure(node, "[peers]\nadopt = false\n")
    node.start()
    assert not lives(mine)
    configure(node)
    node.ask("reload")
    assert ([], "timeout") == (adopted(node), gets(worker))


def test_off_later_closes_and_on_again_opens_no_more_than_before(
    node: Guarded, job: Program, worker: Host, held: ExitStack
) -> None:
    """A change of the configuration, as any other."""
    mine = dialled(held, worker, HERE, STORE)
    node.start()
    configure(node, "[peers]\nadopt = false\n")
    plan = node.ask("plan")
    assert plan["changes"] is True
    node.ask("reload")
    assert not lives(mine)
    assert "timeout" == gets(worker)


def test_audit_mode_shows_what_the_end_of_it_adopts(
    node: Guarded, job: Program, worker: Host, neighbour: Host, held: ExitStack
) -> None:
    """The way of careful people: audit first, then enforce. A job that had a wall adopts nothing
    when audit mode ends a second time, whether it had connections then or not."""
    node.rank().echo("0.0.0.0", LATER)
    mine = dialled(held, worker, HERE, STORE)
    theirs = dialled(held, node.lab.stranger, PUBLIC_HERE, STORE)
    configure(node, main=AUDIT)
    node.start()
    assert ([], JOBS) == (adopted(node), adopted(node, "would"))
    assert "Enforce mode would adopt them now" in problems(node)[0]
    assert (True, True) == (lives(mine), lives(theirs))
    configure(node)
    node.ask("reload")
    assert (True, False) == (lives(mine), lives(theirs))
    assert (JOBS, []) == (adopted(node), adopted(node, "would"))
    configure(node, main=AUDIT)
    node.ask("reload")
    late = [dialled(held, neighbour, HERE, port) for port in (STORE, LATER)]
    configure(node)
    node.ask("reload")
    assert lives(mine)
    assert [False, False] == [lives(one) for one in late]
    assert JOBS == adopted(node)


def test_what_started_while_the_walls_were_down_is_met_for_the_first_time(
    node: Guarded, job: Program, worker: Host, neighbour: Host, held: ExitStack
) -> None:
    """The older job had a wall: it adopts nothing more."""
    mine = dialled(held, worker, HERE, STORE)
    node.start()
    node.ask("down")
    late = dialled(held, neighbour, HERE, STORE)
    second = node.rank()
    second.echo("0.0.0.0", LATER)
    other = dialled(held, neighbour, HERE, LATER)
    node.ask("up")
    assert (True, False, True) == (lives(mine), lives(late), lives(other))
    assert "timeout" == gets(neighbour)
    assert {"10.0.0.2", "10.0.0.9"} == {host for _, hosts, _ in adopted(node) for host in hosts}


def test_a_web_server_with_clients_stays_open_and_they_are_no_peers(
    node: Guarded, job: Program, worker: Host, neighbour: Host, held: ExitStack
) -> None:
    """Until it ends. Its clients reach neither the job's store nor another port of the server."""
    server = web(node)
    server.open("tcp", "0.0.0.0", LATER)
    client = dialled(held, node.lab.stranger, PUBLIC_HERE, WEB)
    dialled(held, neighbour, HERE, WEB)
    dialled(held, worker, HERE, STORE)
    node.start()
    assert lives(client)
    assert "open" == gets(node.lab.stranger, WEB, PUBLIC_HERE)
    assert {"timeout"} == {gets(neighbour, port) for port in (STORE, LATER)}
    assert {"timeout"} == {gets(worker, LATER)}
    assert [*JOBS, ("own", [], [WEB])] == sorted(adopted(node), reverse=True)
    assert any(f"port {WEB} looks like a web server" in line for line in problems(node))
    assert "1 open to the public (api tcp 0.0.0.0:8080)" in str(node.ask("status")["verdict"])
    server.kill()
    eventually(lambda: adopted(node) == JOBS, "it ended")
    web(node)
    node.wait_for_rule(WEB)
    assert "timeout" == gets(node.lab.stranger, WEB, PUBLIC_HERE)


def test_nothing_adopted_outlives_a_boot(
    node: Guarded, job: Program, worker: Host, held: ExitStack, tmp_path: Path
) -> None:
    """The saved wall accepts no source because of a job that runs now."""
    web(node)
    dialled(held, node.lab.stranger, PUBLIC_HERE, WEB)
    dialled(held, worker, HERE, STORE)
    node.start()
    script = tmp_path / "state" / "boot.nft"
    eventually(script.exists, "the wall is saved")
    node.ask("down")
    assert {"open"} == {gets(worker), gets(node.lab.stranger, WEB, PUBLIC_HERE)}
    node.lab.node.run(["nft", "-f", str(script)])
    assert {"timeout"} == {gets(worker), gets(node.lab.stranger, WEB, PUBLIC_HERE)}


def test_what_is_kept_is_a_peer_for_good(
    node: Guarded, job: Program, worker: Host, held: ExitStack
) -> None:
    """Also of the next job; the web server's port stays open for its next start."""
    mine = dialled(held, worker, HERE, STORE)
    server = web(node)
    dialled(held, node.lab.stranger, PUBLIC_HERE, WEB)
    node.start()
    done = node.command("adopted", "keep")
    assert (0, "") == (done.returncode, done.stderr)
    assert "kept for good: 10.0.0.2 of torch" in done.stdout
    assert '"10.0.0.2/32"' in (node.folder / "conf.d/90-peers-saved.toml").read_text()
    assert lives(mine)
    assert {"adopted"}.isdisjoint(" ".join(problems(node)).split())
    for program in (job, server):
        program.kill()
    eventually(lambda: not node.listeners(), "both ended")
    again = node.rank()
    again.open("tcp", "0.0.0.0", STORE)
    web(node)
    for port in (STORE, WEB):
        node.wait_for_rule(port)
    assert "open" == gets(worker)
    assert "open" == gets(node.lab.stranger, WEB, PUBLIC_HERE)
    assert 1 == node.command("adopted", "drop").returncode


def test_only_connections_that_a_process_accepted_count(
    node: Guarded, worker: Host, held: ExitStack
) -> None:
    """One that waits in the backlog proves nothing about the job."""
    rank = node.rank()
    rank.open("tcp", "0.0.0.0", STORE)
    held.enter_context(worker.dial(HERE, STORE))
    node.start()
    assert ([], "timeout") == (adopted(node), gets(worker))
