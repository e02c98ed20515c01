"""The command line as people and scripts meet it: output, width, exit status, cost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.support.answers import as_json, status_json
from tests.support.nodes import RECORDINGS, facts, with_active
from tests.support.scripts import packaging
from tests.unit.cli.conftest import Daemon, Run
from vllmwall.api.plan import plan_of
from vllmwall.cli.peers import Duration

DOCS = Path(__file__).parents[3] / "docs" / "reference"


def test_status_opens_with_the_answer_and_exits_with_it(daemon: Daemon, run: Run) -> None:
    """Safe is 0, anything else is not."""
    daemon.answers("status", status_json(facts()))
    done = run("status")
    assert done.stdout.startswith("Safe: 1 workload, 14 listeners")
    assert done.returncode == 0
    daemon.answers("status", status_json(with_active(facts(), None)))
    done = run("status")
    assert done.stdout.startswith("NOT safe")
    assert done.returncode == 5


def test_equal_listeners_share_a_row_until_all_are_asked_for(daemon: Daemon, run: Run) -> None:
    """Thirteen gloo listeners of one worker are one fact."""
    daemon.answers("status", status_json(facts()))
    assert run("status").stdout.count("gloo") == 1
    assert "(13)" in run("status").stdout
    assert run("status", "--all").stdout.count("gloo") == 13


def test_why_shows_the_evidence(daemon: Daemon, run: Run) -> None:
    """Every role can be questioned."""
    daemon.answers("status", status_json(facts()))
    assert "backlog: 2048" in run("status", "--why").stdout


@pytest.mark.parametrize("recording", ["vllm-single", "ray-2node-driver-serve", "vllm-grpc"])
@pytest.mark.parametrize("width", [80, 120, 200])
def test_status_fits_the_terminal(daemon: Daemon, run: Run, recording: str, width: int) -> None:
    """A real terminal of that width, and no line longer than it."""
    daemon.answers("status", status_json(facts(recording)))
    script = f"stty cols {width}; {sys.executable} -m vllmwall status"
    shown = subprocess.run(
        ["script", "-qec", script, "/dev/null"],
        env={"VLLMWALL_SOCKET": str(daemon.path), "TERM": "xterm", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Safe" in shown
    assert max(len(line) for line in shown.splitlines()) <= width


def test_colours_only_where_they_are_wanted(daemon: Daemon, run: Run) -> None:
    """A pipe gets none, unless it asks; NO_COLOR is kept."""
    daemon.answers("status", status_json(facts()))
    assert "\x1b[" not in run("status").stdout
    assert "\x1b[" in run("--color", "always", "status").stdout
    assert "\x1b[" not in run("--color", "never", "status").stdout


def test_a_users_name_cannot_write_to_the_terminal(daemon: Daemon, run: Run) -> None:
    """Names of models and scripts are their owners' own."""
    answer = status_json(facts())
    text = json.dumps(answer).replace('"tiny"', '"\\u001b[2J[red]x"')
    daemon.answers("status", json.loads(text))
    shown = run("status").stdout
    assert "\x1b" not in shown
    assert "[red]x" in shown


def test_a_plan_is_a_diff(daemon: Daemon, run: Run) -> None:
    """Plus and minus, and one line when there is nothing to do."""
    spaces = with_active(facts(), None).namespaces
    daemon.answers("plan", as_json(plan_of(spaces)))
    shown = run("plan").stdout
    assert "+ tcp 0.0.0.0:8000  public  (api tiny)" in shown
    assert shown.count("  + tcp ") == 14
    daemon.answers("plan", as_json(plan_of(facts().namespaces)))
    assert run("plan").stdout.startswith("Nothing to change")


@pytest.mark.parametrize("command", [["status"], ["reload"], ["peers", "list"], ["snapshot"]])
def test_without_a_daemon_the_exit_status_says_so(run: Run, command: list[str]) -> None:
    """3, and words on stderr."""
    done = run(*command)
    assert done.returncode == 3
    assert "no daemon answers" in done.stderr
    assert done.stdout == ""


def test_what_the_daemon_refuses_reaches_the_person(daemon: Daemon, run: Run) -> None:
    """Denied is 4, failed is 1."""
    daemon.refuses("peers.remove", "failed", "10.0.0.0/24 comes from vllmwall.toml")
    daemon.refuses("reload", "denied", "reload needs root")
    done = run("peers", "remove", "10.0.0.0/24")
    assert (done.returncode, "comes from vllmwall.toml" in done.stderr) == (1, True)
    assert run("reload").returncode == 4


def test_peers_are_added_for_a_while_or_saved_but_not_both(daemon: Daemon, run: Run) -> None:
    """A file does not expire."""
    daemon.answers("peers.add", {"version": 1, **status_json(facts())["peers"]})
    assert run("peers", "add", "10.1.0.0/16", "--for", "1h30m").returncode == 0
    assert daemon.asked[-1] == {
        "command": "peers.add",
        "networks": ["10.1.0.0/16"],
        "seconds": 5400.0,
        "save": False,
    }
    assert run("peers", "add", "10.1.0.0/16", "--for", "1h", "--save").returncode == 2


def test_addresses_are_shown_as_they_are(daemon: Daemon, run: Run) -> None:
    """In lines and in tables. `:100:`, `:b:` and `:bed:` mean pictures in other programs' text."""
    addresses = ["fd00:100::/64", "fd00:b:0:bed::/64", "2001:db8:abcd:1234::/64"]
    source = {"name": "config", "kind": "static", "networks": addresses}
    problem = {**source, "name": "x", "error": "fd00:100::1 is no name", "networks": []}
    daemon.answers(
        "peers.list", {"version": 1, "networks": addresses, "sources": [source, problem]}
    )
    shown = run("peers", "list").stdout
    assert all(one in shown for one in addresses)
    assert "! x: fd00:100::1 is no name\n" in shown


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("2d", 172800)])
def test_durations(text: str, seconds: float) -> None:
    """As people write them."""
    assert seconds == Duration().convert(text, None, None)


@pytest.mark.parametrize("text", ["", "1", "h", "1h 5", "-1h", "1.5h", "1y"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Better no peer than one for the wrong time."""
    with pytest.raises(click.BadParameter, match="write 90s"):
        Duration().convert(text, None, None)


def test_check_names_every_problem_with_its_line(run: Run, tmp_path: Path) -> None:
    """And touches nothing."""
    path = tmp_path / "vllmwall.toml"
    path.write_text('mode = "open"\n[peers]\ncidrs = ["10.0.0.1/8"]\n')
    path.chmod(0o600)
    done = run("check", str(path))
    assert done.returncode == 2
    assert f"{path}:1: mode" in done.stdout
    assert f"{path}:3: peers.cidrs" in done.stdout
    assert json.loads(run("check", str(path), "--json").stdout)["ok"] is False
    path.write_text("")
    assert run("check", str(path)).returncode == 0


def test_recognize_replays_a_recording(run: Run) -> None:
    """The form that bug reports and checks rely on."""
    done = run("recognize", str(RECORDINGS / "vllm-single.json"), "--json")
    answer = json.loads(done.stdout)
    [workload] = answer["workloads"]
    assert {"stack", "name", "root_pid", "listeners"} <= workload.keys()
    keys = {"proto", "addr", "port", "role", "audience", "confidence", "evidence"}
    assert all(keys <= one.keys() for one in workload["listeners"])
    assert "unclaimed" in answer
    assert "api" in run("recognize", str(RECORDINGS / "vllm-single.json")).stdout


def test_a_file_that_is_no_recording_is_refused_in_words(run: Run, tmp_path: Path) -> None:
    """Not a traceback."""
    path = tmp_path / "x.json"
    path.write_text("[]")
    done = run("recognize", str(path))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)


def test_a_snapshot_is_written_to_a_file(daemon: Daemon, run: Run, tmp_path: Path) -> None:
    """And can be read back by whoever gets the bug report."""
    daemon.answers("snapshot", {"snapshot": {"a": 1}})
    assert run("snapshot", "-o", str(tmp_path / "s.json")).returncode == 0
    assert {"a": 1} == json.loads((tmp_path / "s.json").read_text())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(run: Run, shell: str) -> None:
    """For packages and for people."""
    assert "vllmwall" in run("completion", shell).stdout


def test_status_imports_nothing_heavy() -> None:
    """Its start-up is its cost: no pydantic, structlog, pyroute2 or nftables."""
    code = (
        "import sys\nfrom vllmwall.cli import command\ncommand.get_command(None, 'status')\n"
        "import vllmwall.cli.terminal\nprint(' '.join(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"pydantic", "structlog", "pyroute2", "nftables", "yaml", "rich", "vllmwall.config"}
    assert set() == heavy & set(loaded.stdout.split())


def test_the_reference_page_is_what_the_commands_say() -> None:
    """`make docs` after a change of the command line."""
    assert packaging("cli_docs").reference_markdown() == (DOCS / "cli.md").read_text()
