"""How `explain` asks and draws: its question, its words, its statuses, and hostile names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import cast

import pytest
from pydantic import TypeAdapter

from tests.unit.cli.conftest import Daemon, Run
from vllmwall.api.explain.answer import (
    Answer,
    ExplainVerdict,
    Explanation,
    Hook,
    Purpose,
    ReachedSocket,
    joined,
    worst,
)
from vllmwall.api.explain.targets import Question
from vllmwall.enforce.evaluator import Step
from vllmwall.linux.wire import Fit, decode, encode
from vllmwall.model import Evidence, Mode, Proto

SOCKET = ReachedSocket(Proto.TCP, "0.0.0.0", 29500, 7, (42,), "python3", "ada", "/x")
PURPOSE = Purpose(
    workload="llama\x1b[2J",
    stack="vllm",
    root_pid=42,
    role="tcpstore",
    confidence=0.9,
    evidence=(Evidence("flag", "--master-port 29500"),),
    audience=("peers",),
    audience_from="a.toml:3 [policy] x",
    no_rule="",
)
DROPPED = Step("strangers", "counter drop", True)
CLOSED = Answer(
    verdict="closed",
    wall="drop",
    reason="the source is not in its audience: peers",
    namespace="nowhere",
    mode=Mode.ENFORCE,
    proto=Proto.TCP,
    source=ip_address("203.0.113.9"),
    source_is=(),
    address=ip_address("192.0.2.1"),
    port=29500,
    decided=DROPPED,
    way=(Step("input", "a", True, "walled_any4", "tcp . 29500"), DROPPED),
    outcomes=(),
    socket=SOCKET,
    purpose=PURPOSE,
)


def with_verdict(verdict: ExplainVerdict) -> Answer:
    """The same packet with another fate."""
    return replace(CLOSED, verdict=verdict)


def explanation(*answers: Answer, total: int = 0) -> Explanation:
    """The answer of a daemon."""
    found = answers or (CLOSED,)
    return Explanation(
        version=1,
        host="node1",
        time=0.0,
        daemon=True,
        verdict=worst(found),
        total=total or len(found),
        namespaces=("nowhere",),
        answers=found,
        hooks=(Hook("nowhere", "ip filter", "INPUT", "input", 0, "drop"),),
        problems=(),
    )


def wire(answer: Explanation) -> Mapping[str, object]:
    """As it is on the socket."""
    return cast("Mapping[str, object]", encode(answer))


def test_the_answer_is_the_same_after_the_socket() -> None:
    """Nothing of it is lost, and it fits its published schema."""
    there = json.loads(json.dumps(wire(explanation())))
    assert explanation() == decode(Explanation, there, Fit.REQUEST)
    assert explanation() == TypeAdapter(Explanation).validate_python(there)


def test_the_worst_of_several_answers_is_the_verdict() -> None:
    """A script that asks about a workload must learn of the one port that is closed."""
    is_open, depends = with_verdict("open"), with_verdict("depends")
    assert "closed" == worst([is_open, CLOSED])
    assert "unknown" == worst([is_open, depends, with_verdict("unknown")])
    assert "depends" == worst([is_open, depends])
    assert "open" == worst([is_open])
    assert "unknown" == worst([])


def test_parts_are_joined_to_one_explanation() -> None:
    """The daemon answers in parts; the verdict is that of all of them."""
    whole = joined([explanation(with_verdict("open"), total=2), explanation(CLOSED, total=2)])
    assert ("closed", 2) == (whole.verdict, len(whole.answers))


@pytest.mark.parametrize(
    ("verdict", "status"), [("open", 0), ("closed", 8), ("unknown", 9), ("depends", 9)]
)
def test_the_exit_status_is_the_verdict(
    daemon: Daemon, run: Run, verdict: ExplainVerdict, status: int
) -> None:
    """Open, closed, undecided."""
    daemon.answers("explain", wire(explanation(with_verdict(verdict))))
    assert status == run("explain", "stranger", "29500").returncode


def test_the_json_is_the_answer_of_the_daemon(daemon: Daemon, run: Run) -> None:
    """The command line changes nothing in it but control characters."""
    daemon.answers("explain", wire(explanation()))
    shown = json.loads(run("explain", "stranger", "29500", "--json").stdout)
    shown["answers"][0]["purpose"]["workload"] = PURPOSE.workload
    assert wire(explanation()) == shown


def test_a_person_reads_what_decides(daemon: Daemon, run: Run) -> None:
    """The verdict first; names that workloads chose cannot act on the terminal."""
    daemon.answers("explain", wire(explanation()))
    shown = run("--color", "always", "explain", "203.0.113.9", "29500").stdout
    assert "\x1b[1;31mCLOSED" in shown
    plain = run("explain", "203.0.113.9", "29500").stdout
    for words in (
        "CLOSED  tcp 203.0.113.9 to 192.0.2.1:29500 in nowhere",
        "because   the source is not in its audience: peers",
        "walled_any4: tcp . 29500",
        "strangers: counter drop",
        "python3 (42), user ada",
        "llama?[2J (vllm, 42)",
        "tcpstore, 90% sure",
        "flag: --master-port 29500",
        "peers (a.toml:3 [policy] x)",
        "in no peer source and no group",
        "input: ip filter INPUT, priority 0, policy drop",
    ):
        assert words in plain


def test_the_question_carries_what_was_asked(daemon: Daemon, run: Run) -> None:
    """Names are resolved by the command; each question is one that the daemon can read."""
    daemon.answers("explain", wire(explanation()))
    run("explain", "2001:db8::9", "llama", "--proto", "tcp", "--to", "192.0.2.1")
    run("explain", "localhost", "80", "--namespace", "pod")
    run("explain", "peer", "80")
    questions = [
        decode(Question, {key: one for key, one in asked.items() if key != "command"}, Fit.REQUEST)
        for asked in daemon.asked
    ]
    first = Question(("2001:db8::9",), "llama", proto="tcp", to=ip_address("192.0.2.1"))
    assert first == replace(questions[0], firewalls=None)
    named = next(one for one in questions if one.namespace)
    assert ("pod", "80") == (named.namespace, named.target)
    assert "127.0.0.1" in named.sources
    assert ("peer",) == questions[-1].sources


@pytest.mark.parametrize("text", ["no-such-host.invalid", "192.0.2.9:80", "[2001:db8::9]:80"])
def test_a_source_that_is_no_address_and_no_host_is_refused(run: Run, text: str) -> None:
    """With the words that can be used instead."""
    done = run("explain", text, "80")
    assert 1 == done.returncode
    assert f"{text}: not an IP address, and the name does not resolve" in done.stderr
    assert "Use an address, a host name, `peer` or `stranger`." in done.stderr


def test_a_destination_that_is_no_address_is_refused(run: Run) -> None:
    """Before the daemon is asked."""
    done = run("explain", "peer", "80", "--to", "node1")
    assert 2 == done.returncode
    assert "--to node1: not an IP address" in done.stderr
