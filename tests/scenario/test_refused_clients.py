"""`vllmwall blocked`: the answer of a real daemon about strangers that a real wall blocked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.answers import Json
from tests.support.guarded import PATIENCE, PEERS, Guarded, eventually, guarded
from tests.support.lab import Lab
from vllmwall.api.blocked import Blocked
from vllmwall.cli.blocked import NewlyBlocked
from vllmwall.linux.wire import Fit, decode

PORT = 29500
PRIVATE = ("10.9.9.9", "fd00:9::9")


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    """A rank that listens on both families behind a wall."""
    with guarded(lab, tmp_path) as found:
        listen(found)
        yield found


def listen(node: Guarded) -> None:
    """Have a rank open its port, and wait for its rule."""
    node.rank().open("tcp", "::", PORT)
    node.wait_for_rules(1)


def asked(node: Guarded) -> Json:
    """The daemon's answer, in its published shape."""
    answer = node.ask("blocked")
    decode(Blocked, answer, Fit.WHOLE)
    return answer


def of(node: Guarded, source: str) -> Json:
    """What is told of one source."""
    (found,) = (one for one in asked(node)["sources"] if one["source"] == source)
    return found


def connect_from(node: Guarded, source: str, times: int = 1, port: int = PORT) -> None:
    """A TCP attempt each, given up before it is repeated."""
    target = node.lab.node.ipv6 if ":" in source else node.lab.node.ipv4
    for _ in range(times):
        assert "timeout" == node.lab.stranger.connect(target, port, timeout=0.05, source=source)


def command(node: Guarded, *arguments: str) -> list[str]:
    """The command line that asks this daemon."""
    path = str(node.runtime / "control.sock")
    return [sys.executable, "-m", "vllmwall", "--socket", path, *arguments]


def run(node: Guarded, *arguments: str) -> str:
    """What a command prints."""
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(
        command(node, *arguments), env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


@contextmanager
def following(node: Guarded, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on until it is interrupted, and then ends well."""
    process = subprocess.Popen(
        command(node, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        assert "Watching. Press Ctrl-C to stop.\n" == process.stderr.readline()
        yield process
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(timeout=PATIENCE)
    finally:
        process.kill()
        process.communicate()


def test_a_stranger_is_named_with_port_role_and_workload(node: Guarded) -> None:
    """Both families; packets as many as were sent, with their headers."""
    connect_from(node, node.lab.stranger.ipv4, 3)
    connect_from(node, node.lab.stranger.ipv6, 2)
    four, six = of(node, node.lab.stranger.ipv4), of(node, node.lab.stranger.ipv6)
    assert (3, 180) == (four["packets"], four["bytes"])
    assert (2, 160) == (six["packets"], six["bytes"])
    for one in (four, six):
        assert ("tcp", PORT, "enforce", ["peers"]) == (
            one["proto"],
            one["port"],
            one["mode"],
            one["audience"],
        )
        assert one["role"]
        assert one["workload"]
        assert one["since"] <= one["last"] <= asked(node)["time"]
        assert one["last"] > asked(node)["time"] - PATIENCE
    (space,) = asked(node)["namespaces"]
    assert (5, 340, 0, False) == (
        space["packets"],
        space["bytes"],
        space["unnamed_packets"],
        space["full"],
    )


def test_a_peer_is_never_in_it(node: Guarded) -> None:
    """Who is let in was not refused."""
    assert "open" == node.lab.peer.connect(node.lab.node.ipv4, PORT)
    assert [] == asked(node)["sources"]


def test_a_private_source_that_keeps_trying_looks_like_a_forgotten_peer(node: Guarded) -> None:
    """And the command that is shown lets it in indeed."""
    node.lab.stranger.add_address(*PRIVATE)
    for source in PRIVATE:
        connect_from(node, source, 2)
        assert "" == of(node, source)["command"], "twice is not often"
        connect_from(node, source)
    connect_from(node, node.lab.stranger.ipv4, 5)
    assert "" == of(node, node.lab.stranger.ipv4)["command"], "a public address is no suggestion"
    shown = run(node, "blocked")
    for source in PRIVATE:
        line = of(node, source)["command"]
        assert f"\n  {line}\n" in shown
        run(node, *line.split()[1:])
        target = node.lab.node.ipv6 if ":" in source else node.lab.node.ipv4
        assert "open" == node.lab.stranger.connect(target, PORT, source=source)
        assert "it is a peer now" == of(node, source)["hint"]
        assert "" == of(node, source)["command"]


def test_what_was_counted_outlives_a_table_that_is_built_again(node: Guarded) -> None:
    """Another failsafe port replaces the table; the kernel forgets, the daemon does not."""
    connect_from(node, node.lab.stranger.ipv4, 3)
    since = of(node, node.lab.stranger.ipv4)["since"]
    node.configure(PEERS + "[host]\nfailsafe = ['tcp/2222']\n")
    node.ask("reload")
    assert 3 == of(node, node.lab.stranger.ipv4)["packets"]
    connect_from(node, node.lab.stranger.ipv4, 1)
    one = of(node, node.lab.stranger.ipv4)
    assert 4 == one["packets"]
    assert since == one["since"]
    assert 4 == asked(node)["namespaces"][0]["packets"]


def test_in_audit_mode_it_says_would_be(lab: Lab, tmp_path: Path) -> None:
    """Nothing was refused, and nothing says so."""
    node = Guarded(lab, tmp_path)
    node.configure('mode = "audit"\n' + PEERS)
    node.config.write_text('mode = "audit"\n' + PEERS)
    node.start()
    listen(node)
    assert "open" == lab.stranger.connect(lab.node.ipv4, PORT)
    one = of(node, lab.stranger.ipv4)
    assert "audit" == one["mode"]
    assert one["packets"] >= 3, "the whole connection, not its first packet alone"
    shown = run(node, "blocked")
    assert "would have been blocked" in shown
    assert "(not dropped)" in shown
    node.stop()


def test_two_namespaces_are_told_apart(lab: Lab, tmp_path: Path) -> None:
    """The same source at the same port of two containers is two things."""
    other = lab.host("other", "192.0.2.50", "2001:db8::50")
    arguments = ("--only-namespace", other.path)
    with guarded(lab, tmp_path, arguments=arguments) as node:
        listen(node)
        with other_rank(node, other):
            eventually(
                lambda: lab.stranger.connect("192.0.2.50", PORT, timeout=0.05) == "timeout",
                "the wall is active there too",
            )
            before = {one["namespace"]: one["packets"] for one in asked(node)["sources"]}
            connect_from(node, lab.stranger.ipv4, 2)
            after = {one["namespace"]: one["packets"] for one in asked(node)["sources"]}
        here, there = (Path(host.path).name for host in (lab.node, other))
        assert {here, there} == set(after)
        assert 2 == after[here] - before.get(here, 0)
        assert before[there] == after[there]


@contextmanager
def other_rank(node: Guarded, host: object) -> Iterator[None]:
    """A rank like the node's on another host."""
    home = node.lab.node
    node.lab.node = host  # type: ignore[assignment]
    try:
        program = node.rank()
    finally:
        node.lab.node = home
    program.open("tcp", "::", PORT)
    yield
    program.kill()


def test_follow_prints_what_is_new_as_it_comes(node: Guarded) -> None:
    """Not what was before; a JSON object a line; Ctrl-C ends it well."""
    connect_from(node, node.lab.stranger.ipv4, 3)
    with following(node, "blocked", "--follow", "--json") as process:
        assert process.stdout is not None
        connect_from(node, node.lab.stranger.ipv6, 2)
        lines: list[Json] = []
        while sum(one["more_packets"] for one in lines) < 2:
            lines.append(json.loads(process.stdout.readline()))
    assert 2 == sum(one["more_packets"] for one in lines)
    for line in lines:
        decode(NewlyBlocked, line, Fit.WHOLE)
        assert node.lab.stranger.ipv6 == line["refused"]["source"]
        assert line["more_bytes"] == 80 * line["more_packets"]


def test_walls_that_are_down_refuse_nobody(node: Guarded) -> None:
    """And the first line says so."""
    node.ask("down")
    assert asked(node)["down"]
    assert run(node, "blocked").startswith("The walls are down on request")


def test_names_come_from_dns_in_both_directions(node: Guarded) -> None:
    """A name that does not lead back is its owner's invention. Here: a hosts file of its own."""
    connect_from(node, node.lab.stranger.ipv4)
    connect_from(node, node.lab.stranger.ipv6)
    hosts = node.folder / "hosts"
    hosts.write_text(f"{node.lab.stranger.ipv4} gpu-7.example\n")
    script = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    entry = ["unshare", "--mount", "sh", "-c", script, "sh"]
    shown = subprocess.run(
        entry + command(node, "blocked", "--names", "--json"),
        capture_output=True,
        text=True,
        check=True,
    )
    names = {one["source"]: one["name"] for one in json.loads(shown.stdout)["sources"]}
    assert {node.lab.stranger.ipv4: "gpu-7.example", node.lab.stranger.ipv6: ""} == names
