"""One answer from two daemons: the second one was not there when the processes were born."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guarded import RANK, Guarded, Program, eventually, guarded
from tests.support.lab import Lab
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.saved_births import FILE_NAME

API, INTERNAL = 8000, 29500
SECRET = "sk-very-secret"


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    with guarded(lab, tmp_path) as found:
        yield found


def titled_server(node: Guarded, title: str, *flags: str) -> Program:
    """``vllm serve`` that overwrites its command line, and then listens as uvicorn does."""
    script = node.folder / "vllm"
    script.write_text(f"#!{sys.executable}\n{RANK}")
    script.chmod(0o755)
    argv = [str(script), "serve", "tiny", "--port", str(API), *flags]
    process = subprocess.Popen(
        node.lab.node.command(argv),
        env={**os.environ, "TITLE": title},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    program = Program(process)
    node.lab.node._stack.callback(program.kill)
    return program


def gets(node: Guarded, port: int) -> tuple[str, str]:
    """What a peer and a stranger get."""
    at = node.lab.node.ipv4
    return node.lab.peer.connect(at, port), node.lab.stranger.connect(at, port)


def stored(node: Guarded) -> str:
    return (node.runtime / FILE_NAME).read_text()


def restart(node: Guarded, number: signal.Signals = signal.SIGKILL) -> None:
    node.stop(number)
    node.start()


def roots(node: Guarded) -> list[int]:
    return [one["root_pid"] for one in node.ask("status")["workloads"]]  # type: ignore[attr-defined]


def shown(node: Guarded) -> list[tuple[object, ...]]:
    """What `status` says of all listeners, without ages."""
    keys = ("port", "role", "audience", "evidence")
    return sorted(tuple(str(one[key]) for key in keys) for one in node.listeners())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_overwrote_its_command_line_keeps_its_audience(
    node: Guarded, number: signal.Signals
) -> None:
    """Its flags are on no command line any more."""
    server = titled_server(node, "python: serving", "--api-key", SECRET)
    server.open("tcp", "0.0.0.0", API)
    server.open("tcp", "0.0.0.0", INTERNAL)
    node.wait_for_rules(2)
    eventually(lambda: ("open", "open") == gets(node, API), "the API is open")
    assert ("open", "timeout") == gets(node, INTERNAL)
    before = shown(node)
    eventually(lambda: 2 == stored(node).count(" listener "), "backlogs are stored")
    restart(node, number)
    assert before == shown(node)
    assert (("open", "open"), ("open", "timeout")) == (gets(node, API), gets(node, INTERNAL))
    assert SECRET not in stored(node)


def test_an_orphan_that_shows_nothing_stays_closed(node: Guarded) -> None:
    """Its root was killed, it forgot what it was, and then the daemon was killed."""
    server = node.server(API)
    server.open("tcp", "0.0.0.0", INTERNAL)
    node.wait_for_rules(1)
    child = server.fork()
    eventually(lambda: f'"pid": {child}' in stored(node), "its birth is stored")
    server.kill_root()
    eventually(lambda: [child] == roots(node), "it is all that is left")
    assert ("open", "timeout") == gets(node, INTERNAL)
    restart(node)
    assert ("open", "timeout") == gets(node, INTERNAL)


def test_a_broken_file_costs_one_line(node: Guarded) -> None:
    """The daemon starts, and its walls are active."""
    node.rank().open("tcp", "0.0.0.0", INTERNAL)
    node.wait_for_rules(1)
    eventually(lambda: " listener " in stored(node), "it is stored")
    node.stop(signal.SIGKILL)
    file = node.runtime / FILE_NAME
    file.write_text(stored(node).replace("29500", "29501"))
    node.start()
    assert 1 == len(node.logged(EventKey.BIRTHS_UNREADABLE))
    assert ("open", "timeout") == gets(node, INTERNAL)
    eventually(lambda: "29500" in stored(node), "it is stored again")
