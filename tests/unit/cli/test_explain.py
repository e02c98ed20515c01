"""How `explain` asks and draws: its words, its colours, its statuses, and hostile names."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from pydantic import TypeAdapter

from tests.unit.cli.conftest import Daemon, Run
from vllmwall.api.explain.reasons import AnswerFacts, OwnerFacts, WallFacts, explain_json
from vllmwall.api.explain.shape import ExplainJson, StepJson
from vllmwall.cli.explain import source_of
from vllmwall.model import (
    Evidence,
    Label,
    LabelledListener,
    Listener,
    Mode,
    Proto,
    Role,
    Stack,
    Workload,
    WorkloadId,
)

LISTENER = Listener(1, Proto.TCP, 29500, ip_address("0.0.0.0"), inode=7, pids=(42,))
LABEL = Label(Role.TCPSTORE, 0.9, (Evidence("flag", "--master-port 29500"),))
LABELLED = LabelledListener(LISTENER, LABEL)
WORKLOAD = Workload(WorkloadId(42, 1), Stack.VLLM, "llama\x1b[2J", frozenset({42}), (LABELLED,))
OWNER = OwnerFacts("python3", "ada", "/x", WORKLOAD, LABELLED, ("peers",), "a.toml:3 [policy] x")


def step(chain: str, rule: str = "r", set_: str = "", element: str = "") -> StepJson:
    """A rule that matched."""
    return {"chain": chain, "rule": rule, "set": set_, "element": element, "matched": True}


CLOSED = (step("input", "a", "walled_any4", "tcp . 29500"), step("strangers", "counter drop"))


def facts(
    wall: WallFacts = WallFacts("drop", CLOSED),  # noqa: B008 frozen
    *,
    source: str = "203.0.113.9",
    listener: Listener | None = LISTENER,
    here: bool = False,
    mode: Mode = Mode.ENFORCE,
) -> AnswerFacts:
    """A stranger at a TCPStore."""
    node = ip_address("192.0.2.1")
    owner = OWNER if listener else OwnerFacts()
    return AnswerFacts(
        "host", mode, Proto.TCP, ip_address(source), (), node, 29500, wall, listener, owner, here
    )


def answer(*those: AnswerFacts) -> ExplainJson:
    """The answer of a daemon."""
    made = explain_json("node1", 0.0, those, len(those), [])
    return TypeAdapter(ExplainJson).validate_python(made)


@pytest.mark.parametrize(
    ("asked", "verdict", "words"),
    [
        (facts(), "closed", "not in its audience: peers"),
        (facts(WallFacts("reject", CLOSED)), "closed", "says so itself"),
        (facts(WallFacts("drop", (step("banned"), *CLOSED))), "closed", "is banned"),
        (facts(WallFacts("drop", (step("lockdown"), *CLOSED))), "closed", "host.lockdown"),
        (
            facts(WallFacts("drop", (step("cgroups", "s", "guarded_2", "9"), *CLOSED))),
            "closed",
            "its cgroup is guarded",
        ),
        (facts(WallFacts("accept"), listener=None), "closed", "nobody listens"),
        (facts(WallFacts("accept"), source="2001:db8::9"), "closed", "not for IPv6"),
        (
            facts(
                WallFacts("accept"),
                listener=Listener(1, Proto.TCP, 29500, ip_address("127.0.0.1")),
            ),
            "closed",
            "bound to loopback",
        ),
        (facts(WallFacts("unknown", why="odd rule")), "unknown", "odd rule"),
        (facts(WallFacts("depends", CLOSED, ("drop", "accept"))), "depends", "a limit decides"),
        (facts(WallFacts("none")), "open", "no wall stands"),
        (facts(WallFacts("accept", (step("input"),)), here=True), "open", "over lo"),
        (facts(WallFacts("accept", CLOSED), mode=Mode.AUDIT), "open", "only counts"),
        (
            facts(WallFacts("accept", (step("only_peers", "p", "peers4", "192.0.2.0/24"),))),
            "open",
            "192.0.2.0/24 in peers4",
        ),
        (
            facts(WallFacts("accept", (step("unlisted", "v", "any4", "x : accept"),))),
            "open",
            "lets everyone in",
        ),
        (facts(WallFacts("accept", (step("guarded"),))), "open", "failsafe"),
        (facts(WallFacts("accept", (step("input", "policy accept"),))), "open", "no rule for"),
        (
            replace(facts(WallFacts("accept")), owner=OwnerFacts(audience=("public",))),
            "open",
            "its audience is everyone",
        ),
    ],
)
def test_every_end_has_a_verdict_and_a_reason(asked: AnswerFacts, verdict: str, words: str) -> None:
    """Open only where the wall accepts and somebody listens."""
    (found,) = answer(asked)["answers"]
    assert verdict == found["verdict"]
    assert words in found["reason"]


def test_the_worst_of_several_answers_is_the_verdict() -> None:
    """A script that asks about a role wants to know of the one that is closed."""
    is_open, is_closed = facts(WallFacts("none")), facts()
    assert "closed" == answer(is_open, is_closed)["verdict"]
    assert "unknown" == answer(is_open, facts(WallFacts("unknown")))["verdict"]
    assert "open" == answer(is_open)["verdict"]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (facts(WallFacts("none")), 0),
        (facts(), 8),
        (facts(WallFacts("unknown")), 9),
        (facts(WallFacts("depends")), 9),
    ],
)
def test_the_exit_status_is_the_verdict(
    daemon: Daemon, run: Run, asked: AnswerFacts, status: int
) -> None:
    """Open, closed, undecided."""
    daemon.answers("explain", dict(answer(asked)))
    assert status == run("explain", "stranger", "29500").returncode


def test_a_person_reads_what_decides(daemon: Daemon, run: Run) -> None:
    """The verdict first; names that workloads chose cannot act on the terminal."""
    daemon.answers("explain", dict(answer(facts())))
    shown = run("--color", "always", "explain", "203.0.113.9", "29500").stdout
    assert "\x1b[1;31mCLOSED" in shown
    plain = run("explain", "203.0.113.9", "29500").stdout
    for words in (
        "CLOSED  tcp 203.0.113.9 to 192.0.2.1:29500 in host",
        "walled_any4: tcp . 29500",
        "strangers: counter drop",
        "python3 (42), user ada",
        "llama?[2J (vllm, 42)",
        "tcpstore, 90% sure",
        "flag: --master-port 29500",
        "peers (a.toml:3 [policy] x)",
        "in no peer source and no group",
    ):
        assert words in plain


def test_the_question_carries_what_was_asked(daemon: Daemon, run: Run) -> None:
    """Addresses are told apart from words and ports here; names are resolved here too."""
    daemon.answers("explain", dict(answer(facts())))
    run("explain", "[2001:db8::9]:4000", "llama/api", "--proto", "tcp", "--to", "192.0.2.1")
    run("explain", "localhost", "80", "--namespace", "pod")
    first, second = daemon.asked
    assert (["2001:db8::9"], 4000, "llama/api") == (
        first["sources"],
        first["source_port"],
        first["target"],
    )
    assert ("tcp", "192.0.2.1") == (first["proto"], first["to"])
    assert "127.0.0.1" in second["sources"]  # type: ignore[operator]
    assert "pod" == second["namespace"]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("peer", "peer", None),
        ("192.0.2.9", "192.0.2.9", None),
        ("192.0.2.9:80", "192.0.2.9", 80),
        ("2001:db8::9", "2001:db8::9", None),
        ("[2001:db8::9]", "2001:db8::9", None),
        ("[2001:db8::9]:80", "2001:db8::9", 80),
        ("host.example:80", "host.example", 80),
    ],
)
def test_a_source_is_read_as_people_write_it(text: str, host: str, port: int | None) -> None:
    """With and without a port, brackets only where they are needed."""
    assert ([host], port) == source_of(text)


@pytest.mark.parametrize("text", ["192.0.2.9:0", "192.0.2.9:70000", "host:x", "[::1]:-1"])
def test_a_port_that_is_none_ends_the_command_with_words(run: Run, text: str) -> None:
    """Before anybody is asked."""
    done = run("explain", text, "80")
    assert 2 == done.returncode
    assert "is not a port" in done.stderr


def test_a_name_that_does_not_resolve_is_said(run: Run) -> None:
    """With the words that would do."""
    done = run("explain", "no-such-host.invalid", "80")
    assert 1 == done.returncode
    assert "`peer` or `stranger`" in done.stderr
