"""Each command as a process of its own: it starts, asks the daemon and ends with the right status.

What it draws is tested in process, which is a hundred times as fast.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.answers import as_json, status_json
from tests.support.nodes import RECORDINGS, facts
from tests.unit.api.test_blocked import answer as blocked_answer
from tests.unit.cli.conftest import Daemon, Run
from tests.unit.cli.test_asking import crowd
from vllmwall.api.plan import plan_of

BANS = {"version": 1, "bans": [], "enforced": True, "problems": [], "severed": 0}
EVENTS = {"version": 1, "epoch": "a", "next": 1, "newest": 1, "lost": 0, "events": []}


def replies() -> dict[str, dict[str, object]]:
    """An answer to each question."""
    status = status_json(facts())
    source = {"kind": "static", "name": "x.toml", "networks": ["10.0.0.0/8"]}
    source |= {"expires": None, "error": None}
    peers = {"version": 1, "networks": ["10.0.0.0/8"], "sources": [source]}
    return {
        "status": status,
        "reload": status,
        "up": status,
        "down": {"version": 1, "removed": [1]},
        "confirm": {"version": 1, "confirmed": "reload"},
        "rollback": {"version": 1, "rolled_back": ""},
        "plan": as_json(plan_of(facts().namespaces)),
        "blocked": blocked_answer(),
        "connections": crowd()["connections"],
        "learn": crowd(),
        "events": EVENTS,
        "bans.list": BANS,
        "bans.add": BANS,
        "bans.remove": BANS,
        "peers.list": peers,
        "peers.add": peers,
        "peers.remove": peers,
        "peers.accept-loss": peers,
        "snapshot": {"snapshot": {"a": 1}},
    }


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("status", 0, "Safe: 1 workload"),
        ("connections", 0, "of 20 clients"),
        ("blocked --no-names", 0, "1 source"),
        ("events", 0, ""),
        ("bans", 0, "no bans"),
        ("plan", 0, "Nothing to change"),
        ("check /nonexistent/vllmwall.toml", 0, "defaults apply"),
        ("config schema", 0, '"$schema"'),
        ("snapshot", 0, '"a": 1'),
        (f"recognize {RECORDINGS / 'vllm-single.json'}", 0, "other listener"),
        ("peers list", 0, "PEERS"),
        ("peers add 10.1.0.0/16", 0, "PEERS"),
        ("peers remove 10.1.0.0/16", 0, "PEERS"),
        ("peers accept-loss gpu-nodes.internal", 0, "PEERS"),
        ("learn --now", 0, "Nothing was applied."),
        ("setup --look", 0, "workloads"),
        ("ban 203.0.113.9", 0, "no bans"),
        ("unban 203.0.113.9", 0, "no bans"),
        ("reload", 0, "Safe: 1 workload"),
        ("up", 0, "Safe: 1 workload"),
        ("down", 0, "Removed the wall in 1 network namespace."),
        ("confirm", 0, "Confirmed: reload stays."),
        ("completion bash", 0, "_VLLMWALL_COMPLETE"),
        ("run no-such-command-here", 127, ""),
        ("daemon --no-such-option", 2, ""),
        ("explain 192.0.2.9 80 --proto sctp", 2, ""),
        ("audit --help", 0, "--fail-on"),
        ("doctor --help", 0, "--all"),
        ("prove --help", 0, "--peer"),
        ("install-units --help", 0, "--enable"),
    ],
)
def test_a_command_is_a_program(
    daemon: Daemon, process: Run, line: str, status: int, words: str
) -> None:
    """With nothing on stderr, unless it failed."""
    for command, answer in replies().items():
        daemon.answers(command, answer)
    done = process(*line.split())
    assert (status, status == 0) == (done.returncode, done.stderr == "")
    assert words in done.stdout


def test_failures_of_a_program(process: Run, tmp_path: Path) -> None:
    """As text and as JSON, with the same status."""
    plain, done = process("bans"), process("bans", "--json")
    assert (3, "") == (plain.returncode, plain.stdout)
    assert (3, "") == (done.returncode, done.stderr)
    assert plain.stderr.startswith(f"vllmwall: no daemon answers at {tmp_path}/control.sock\n")
    assert "not-running" == json.loads(done.stdout)["error"]["code"]
