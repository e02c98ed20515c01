"""`vllmwall api`: a port that was not proven to be an API is opened and closed by the operator."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.explaining import explain
from tests.support.guarded import PEERS, RANK, Guarded, Program, eventually
from tests.support.lab import Lab
from tests.support.severing import ending
from vllmwall.api.errors import ControlError
from vllmwall.engine.event_keys import EventKey

WEB, STORE, SSH = 8080, 29500, 22
CONFIG = PEERS + "[[workload]]\nname = 'own'\nmatch.argv = '*own-web*'\n"


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    """A daemon that knows nothing of the workload `own` but its name."""
    found = Guarded(lab, tmp_path / "node")
    found.configure(CONFIG)
    found.start()
    yield found
    if found.process is not None and found.process.poll() is None:
        found.stop()


def own(node: Guarded, port: int = WEB, name: str = "own-web") -> Program:
    """Its process: a web server whose command line names no port."""
    script = node.folder / name
    script.write_text(f"#!{sys.executable}\n{RANK}")
    script.chmod(0o755)
    program = node._program([str(script), "--fast"], {**os.environ})
    program.open("tcp", "0.0.0.0", port)
    eventually(lambda: port in {one["port"] for one in node.listeners()}, "it is known")
    return program


def from_stranger(node: Guarded, port: int = WEB) -> str:
    """What a stranger gets."""
    return node.lab.stranger.connect(node.lab.node.ipv4, port)


def refusal(node: Guarded, command: str, **arguments: object) -> str:
    """The words with which a request is refused."""
    with pytest.raises(ControlError) as refused:
        node.ask(command, **arguments)
    return str(refused.value)


def test_the_first_lines_name_what_may_be_an_api_and_the_command_opens_it(node: Guarded) -> None:
    """As an operator would: read, copy, run; then take it back."""
    own(node)
    assert from_stranger(node) == "timeout"
    assert node.lab.peer.connect(node.lab.node.ipv4, WEB) == "open"
    [problem] = node.ask("status")["problems"]  # type: ignore[misc]
    assert f"port {WEB}: own-web (pid " in problem
    assert "clients may be waiting" in problem
    shown = node.command("status")
    verdict, *lines = shown.stdout.splitlines()
    assert "1 workload, 1 listener; none open to the public" in verdict
    assert any(line.startswith(f"! port {WEB}: own-web") for line in lines[:3])
    command = problem.partition("To open it: vllmwall ")[2].split()
    assert command == ["api", "add", str(WEB), "--save"]
    done = node.command(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert from_stranger(node) == "open"
    assert node.ask("status")["problems"] == []
    assert (
        f"opened: the operator opened port {WEB} of own" in node.command("status", "--why").stdout
    )
    (answer,) = explain(node, node.lab.stranger.ipv4, str(WEB)).answers
    assert answer.verdict == "open"
    assert answer.purpose
    assert "opened" in {one.kind for one in answer.purpose.evidence}
    with node.lab.stranger.dial(node.lab.node.ipv4, WEB) as client:
        assert node.command("api", "remove", str(WEB), "--save").returncode == 0
        assert ending(client) is not None
    assert from_stranger(node) == "timeout"
    assert [one["change"] for one in node.logged(EventKey.APIS_CHANGED)] == ["added", "removed"]


@pytest.mark.parametrize("save", [False, True])
def test_it_survives_the_daemon_and_the_workload(node: Guarded, save: bool) -> None:
    """Killed, both; a plan changes nothing, and neither does a reload."""
    first = own(node)
    node.ask("api.add", port=WEB, save=save)
    node.stop(signal.SIGKILL)
    assert from_stranger(node) == "open"
    node.start()
    assert from_stranger(node) == "open"
    first.kill()
    eventually(lambda: not node.listeners(), "it is gone")
    own(node)
    eventually(lambda: from_stranger(node) == "open", "the next one is open")
    assert node.ask("plan")["changes"] is False
    node.ask("reload")
    assert from_stranger(node) == "open"


def test_only_what_is_saved_survives_a_boot(node: Guarded) -> None:
    """/run is empty then."""
    own(node, WEB)
    own(node, WEB + 1, "second-own-web")
    node.ask("api.add", port=WEB, save=True)
    node.ask("api.add", port=WEB + 1)
    assert [from_stranger(node, WEB + n) for n in (0, 1)] == ["open", "open"]
    node.stop()
    (node.runtime / "apis.json").unlink()
    node.start()
    assert [from_stranger(node, WEB + n) for n in (0, 1)] == ["open", "timeout"]
    listed = node.ask("api.list")["apis"]
    assert [(one["port"], one["origin"]) for one in listed] == [(WEB, "saved")]  # type: ignore[attr-defined]
    words = refusal(node, "api.remove", port=WEB)
    assert "is saved in" in words
    node.ask("api.remove", port=WEB, save=True)
    assert from_stranger(node) == "timeout"
    assert not (node.config.parent / "conf.d" / "91-apis-saved.toml").exists()


def test_one_in_the_configuration_is_removed_there(node: Guarded) -> None:
    """`plan` shows it before `reload` opens it."""
    own(node)
    node.configure(CONFIG + f"[[api]]\nport = {WEB}\nworkload = 'own'\n")
    plan = node.command("plan")
    assert "public" in plan.stdout
    node.ask("reload")
    assert from_stranger(node) == "open"
    assert "[[api]] section" in refusal(node, "api.remove", port=WEB)
    node.configure(CONFIG)
    node.ask("reload")
    assert from_stranger(node) == "timeout"


def test_another_workload_on_the_same_port_stays_closed(node: Guarded) -> None:
    """The name counts, not the number alone."""
    first = own(node)
    node.ask("api.add", port=WEB)
    first.kill()
    eventually(lambda: not node.listeners(), "it is gone")
    other = node.rank()
    other.open("tcp", "0.0.0.0", WEB)
    node.wait_for_rule(WEB)
    node.settled()
    assert from_stranger(node) == "timeout"
    [one] = node.ask("api.list")["apis"]  # type: ignore[misc]
    assert one["why_closed"] == "nothing listens there now"


def test_a_port_with_an_internal_fingerprint_needs_force(node: Guarded) -> None:
    """And is said to be what it is."""
    rank = node.rank()
    rank.open("tcp", "0.0.0.0", STORE)
    node.wait_for_rule(STORE)
    words = refusal(node, "api.add", port=STORE)
    assert "role tcpstore" in words
    assert "--force" in words
    assert from_stranger(node, STORE) == "timeout"
    node.ask("api.add", port=STORE, force=True)
    assert from_stranger(node, STORE) == "open"
    node.ask("api.remove", port=STORE)
    assert from_stranger(node, STORE) == "timeout"


def test_only_a_listener_of_a_workload_can_be_opened(node: Guarded) -> None:
    """Everything else is no port that the wall closes."""
    program = own(node)
    program.open("udp", "0.0.0.0", 8081)
    program.open("tcp", "127.0.0.1", 8082)
    node.lab.node.listen("0.0.0.0", 8083)
    eventually(lambda: {8081, 8082} <= {one["port"] for one in node.listeners()}, "all are known")
    node.ask("reload")  # reads the node
    assert {
        8079: "no workload of this node listens on TCP port 8079",
        8081: "no workload of this node listens on TCP port 8081",
        8082: "port 8082 listens on loopback only (tcp 127.0.0.1:8082): no rule can open it",
        8083: "port 8083 belongs to no workload, so vllmwall does not close it",
        SSH: "port 22 is a failsafe port: it is never closed",
        0: "port: a number from 1 to 65535 is needed",
    } == {
        port: refusal(node, "api.add", port=port).splitlines()[0]
        for port in (8079, 8081, 8082, 8083, SSH, 0)
    }
    assert "There is: own." in refusal(node, "api.add", port=WEB, workload="owl")
    assert "was not opened by a command" in refusal(node, "api.remove", port=WEB)


def test_a_damaged_file_opens_nothing_and_is_named(node: Guarded) -> None:
    """Half written, or by somebody else."""
    own(node)
    node.ask("api.add", port=WEB)
    node.stop()
    (node.runtime / "apis.json").write_text("{")
    node.start()
    assert from_stranger(node) == "timeout"
    assert any("apis.json is damaged" in one for one in node.ask("status")["problems"])  # type: ignore[attr-defined]


def test_a_saved_file_with_other_keys_is_not_replaced(node: Guarded) -> None:
    """Somebody's words are in it."""
    own(node)
    saved = node.config.parent / "conf.d" / "91-apis-saved.toml"
    saved.parent.mkdir()
    saved.write_text("mode = 'enforce'\n")
    assert "nothing else" in refusal(node, "api.add", port=WEB, save=True)
    assert saved.read_text() == "mode = 'enforce'\n"
    assert from_stranger(node) == "timeout"


def test_a_policy_that_names_web_ends_the_question(node: Guarded) -> None:
    """The operator has decided; an API is for those whom [policy] api names."""
    own(node)
    node.configure(CONFIG + "[policy]\nweb = 'peers'\napi = 'peers'\n")
    assert node.ask("reload")["problems"] == []
    [one] = node.ask("api.add", port=WEB)["apis"]  # type: ignore[misc]
    assert (one["audience"], one["why_closed"]) == (
        ["peers"],
        "[policy] gives the role api to peers",
    )
    assert from_stranger(node) == "timeout"
