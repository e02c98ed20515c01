"""`blocked`, `connections` and `learn` as a person sees them: width, words, hostile names."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.answers import Json, as_json
from tests.unit.api.test_blocked import answer as blocked_answer
from tests.unit.cli.conftest import Daemon, Run
from tests.unit.inspect.learn.test_proposal import client, facts, refused
from vllmwall.api.blocked import Blocked, BlockedSource
from vllmwall.cli.blocked import line_of, newly_blocked
from vllmwall.linux.wire import decode
from vllmwall.model import Mode

LONG = "2001:0db8:aaaa:bbbb:cccc:dddd:eeee:ffff"
MODEL = "meta-llama/Llama-3.3-70B-Instruct-with-a-very-long-name-indeed"


def many() -> Json:
    """A hundred sources, the longest addresses and names."""
    made = blocked_answer(LONG)
    (one,) = made["sources"]
    made["sources"] = [
        {**one, "source": f"{LONG[:-2]}{number:02x}", "workload": MODEL, "role": "ray-dashboard"}
        for number in range(100)
    ] + [{**blocked_answer("fd00:1111:2222:3333:4444:5555:6666:7777")["sources"][0]}]
    return made


def crowd() -> Json:
    """Clients with the longest addresses, and as many bytes as there are."""
    look = facts(
        *(
            client(f"{LONG[:-2]}{number:02x}", workload=MODEL, bytes_sent=10**14)
            for number in range(20)
        ),
        knocks=(refused("10.0.0.2", "audit"),),
    )
    return as_json(look)


@pytest.mark.parametrize("width", [0, 80, 120])
@pytest.mark.parametrize("command", ["blocked", "connections", "learn --now"])
def test_it_fits_the_terminal(daemon: Daemon, command: str, width: int) -> None:
    """No line is longer, except a diff and a command, which must stay whole. 0: it is unknown."""
    daemon.answers("blocked", many())
    daemon.answers("learn", crowd())
    daemon.answers("connections", crowd()["connections"])
    script = f"stty cols {width}; {sys.executable} -m vllmwall {command}"
    script += " --no-names" if command == "blocked" else ""
    shown = subprocess.run(
        ["script", "-qec", script, "/dev/null"],
        env={"VLLMWALL_SOCKET": str(daemon.path), "TERM": "xterm", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = [line for line in shown.splitlines() if not line.startswith(("+", "-", "@"))]
    assert len(lines) > 10
    assert "Traceback" not in shown
    assert 60 < max(map(len, lines)) <= (width or 80)


def test_a_name_cannot_write_to_the_terminal(daemon: Daemon, run: Run) -> None:
    """Models, scripts and roles are their owners' own words."""
    for command, made in (("blocked", many()), ("connections", crowd()["connections"])):
        daemon.answers(command, json.loads(json.dumps(made).replace(MODEL, "x\\u001b[2J[red]y")))
        shown = run(command, *(["--all"] if command == "blocked" else [])).stdout
        assert "\x1b" not in shown
        assert "x?[2J[red]y" in shown


def test_many_sources_are_cut_and_said_to_be(daemon: Daemon, run: Run) -> None:
    """Thirty lines; --all shows the rest."""
    daemon.answers("blocked", many())
    shown = run("blocked").stdout
    assert "… and 71 more (--all)" in shown
    assert shown.count("ray-dashboard") == 30
    assert run("blocked", "--all").stdout.count("ray-dashboard") == 100
    assert 101 == len(json.loads(run("blocked", "--json").stdout)["sources"])


def test_a_scan_is_one_row(daemon: Daemon, run: Run) -> None:
    """A hundred ports of one purpose by one source."""
    made = blocked_answer()
    made["sources"] = [{**made["sources"][0], "port": port} for port in range(100, 200)]
    daemon.answers("blocked", made)
    assert "tcp 100…199 (100)" in run("blocked").stdout
    assert run("blocked", "--all").stdout.count("tcp 1") == 101, "the hint has one, too"


def test_a_full_memory_and_an_error_are_said(daemon: Daemon, run: Run) -> None:
    """What is not known is not hidden."""
    made = blocked_answer(remembered=4096, total=10)
    made["namespaces"][0]["error"] = "it burns"
    daemon.answers("blocked", made)
    shown = run("blocked").stdout
    assert "lower bounds" in shown
    assert "! host: it burns" in shown
    assert "7 packets from sources that the kernel does not remember" in shown


def test_nobody_refused_says_since_when(daemon: Daemon, run: Run) -> None:
    """Silence needs a time to mean something."""
    made = blocked_answer()
    made["sources"], made["namespaces"] = [], []
    daemon.answers("blocked", made)
    assert run("blocked").stdout.startswith("Nothing was blocked since 1970-")


def test_what_is_new_is_the_difference() -> None:
    """Also for a source that was known before."""

    def keyed(made: Json) -> dict[tuple[str, str, str, str, int], BlockedSource]:
        return {(one.source, "", "", "", 0): one for one in decode(Blocked, made).sources}

    old, new = keyed(blocked_answer(packets=3)), keyed(blocked_answer(packets=5))
    (line,) = newly_blocked(old, new, 1.0)
    assert (2, 120) == (line.more_packets, line.more_bytes)
    assert [] == list(newly_blocked(new, new, 1.0))
    (line,) = newly_blocked({}, new, 1.0)
    assert 5 == line.more_packets
    assert "10.0.0.9 blocked at tcp 29500 (nccl, tiny): 5 packets" in line_of(line)
    assert "vllmwall peers add 10.0.0.9/32 --save" in line_of(line)
    counted = replace(line, refused=replace(line.refused, mode=Mode.AUDIT))
    assert "would be blocked" in line_of(counted)


def test_ban_hands_the_address_to_the_daemon(daemon: Daemon, run: Run) -> None:
    """As `vllmwall ban` does, and what the daemon refuses is told with its words."""
    banned = {"network": "203.0.113.9/32", "since": 1.0, "expires": None, "reason": ""}
    answer = {"version": 1, "bans": [banned], "enforced": True, "severed": 0, "problems": []}
    daemon.answers("bans.add", answer)
    done = run("connections", "--ban", "203.0.113.9", SSH_CONNECTION="192.0.2.7 5 192.0.2.1 22")
    assert "203.0.113.9 is banned" in done.stdout
    assert daemon.asked[-1] == {
        "command": "bans.add",
        "networks": ["203.0.113.9"],
        "ssh_client": "192.0.2.7",
        "seconds": None,
        "reason": "",
        "force": False,
    }
    daemon.refuses("bans.add", "failed", "203.0.113.9 is this host's own address")
    done = run("connections", "--ban", "203.0.113.9")
    assert (1, "") == (done.returncode, done.stdout)
    assert "this host's own address" in done.stderr


def test_learn_writes_nothing_it_was_not_told_to(daemon: Daemon, run: Run, tmp_path: Path) -> None:
    """A proposal on paper; with --write, in that very file."""
    look = crowd()
    look["conf_d"] = str(tmp_path / "conf.d")
    daemon.answers("learn", look)
    assert "Nothing was applied." in run("learn", "--now").stdout
    assert not (tmp_path / "conf.d").exists()
    place = tmp_path / "here.toml"
    assert "Written to" in run("learn", "--now", "--write", str(place)).stdout
    assert "10.0.0.2/32" in place.read_text()
    assert not (tmp_path / "conf.d").exists()
