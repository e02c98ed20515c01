"""`vllmwall learn`: a week of audit, in seconds, and the list of peers that comes of it."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from tests.scenario.test_refused_clients import PRIVATE, command, listen, other_rank, run
from tests.support.guarded import Guarded, eventually
from tests.support.lab import Lab
from vllmwall.api.learn import LearnFacts
from vllmwall.inspect.learn.proposal import Proposal
from vllmwall.linux.wire import Fit, decode

PORT = 29500
RACK = [f"10.7.0.{last}" for last in (4, 5, 6)]
FAR = "10.7.0.130"


@pytest.fixture
def held() -> Iterator[ExitStack]:
    """Connections that end with the test."""
    with ExitStack() as stack:
        yield stack


def audited(lab: Lab, folder: Path, *arguments: str) -> Guarded:
    """A node in audit mode that knows no peers, with a rank and an API."""
    node = Guarded(lab, folder, arguments=arguments)
    node.config.write_text('mode = "audit"\n')
    node.start()
    node.server(8000).open("tcp", "::", 8000)
    listen_too(node)
    lab.stranger.add_address(*RACK, FAR, *PRIVATE)
    return node


def listen_too(node: Guarded) -> None:
    """A rank beside the API."""
    node.rank().open("tcp", "::", PORT)
    node.wait_for_rules(2)


def dialled(node: Guarded, held: ExitStack, source: str, port: int = PORT) -> None:
    """A connection from one of the stranger's addresses, held."""
    target = node.lab.node.ipv6 if ":" in source else node.lab.node.ipv4
    held.enter_context(node.lab.stranger.dial(target, port, source=source))


def learned(node: Guarded, *arguments: str) -> Proposal:
    """What it proposes, in its published shape."""
    answer: Proposal = TypeAdapter(Proposal).validate_json(
        run(node, "learn", "--json", *arguments), strict=True
    )
    return answer


def proposed(answer: Proposal) -> list[str]:
    return [one.network for one in answer.networks]


def decisions(answer: Proposal) -> dict[str, str]:
    return {one.address: one.decision for one in answer.sources}


def test_what_is_proposed_lets_the_ranks_in_and_nobody_else(
    lab: Lab, tmp_path: Path, held: ExitStack
) -> None:
    """From audit to enforce by the proposal alone; nothing counts before it is asked for."""
    node = audited(lab, tmp_path)
    for source in (*RACK, FAR, *PRIVATE):
        dialled(node, held, source)
    dialled(node, held, lab.stranger.ipv4, 8000)
    answer = learned(node, "--now")
    assert ["10.7.0.4/30", f"{FAR}/32", f"{PRIVATE[0]}/32", f"{PRIVATE[1]}/128"] == proposed(answer)
    assert "left out" == decisions(answer)[lab.stranger.ipv4]
    assert not (tmp_path / "conf.d").exists(), "nothing is written unasked"
    assert [] == node.ask("peers.list")["networks"]  # type: ignore[index]

    shown = run(node, "learn", "--now")
    assert '+  "10.7.0.4/30",  # 3 of 4 seen' in shown
    assert "Nothing was applied." in shown
    run(node, "learn", "--now", "--write", answer.file)
    assert [] == node.ask("peers.list")["networks"], "not before a reload"  # type: ignore[index]
    node.ask("reload")
    assert proposed(answer) == node.ask("peers.list")["networks"]  # type: ignore[index]
    again = learned(node, "--now")
    assert ((), "") == (again.networks, again.diff)

    node.config.write_text('mode = "enforce"\n')
    node.ask("reload")
    for source in (*RACK, FAR, *PRIVATE):
        target = lab.node.ipv6 if ":" in source else lab.node.ipv4
        assert "open" == lab.stranger.connect(target, PORT, source=source)
    assert "timeout" == lab.stranger.connect(lab.node.ipv4, PORT)
    assert "timeout" == lab.stranger.connect(lab.node.ipv6, PORT)
    assert "open" == lab.stranger.connect(lab.node.ipv4, 8000)


def test_exact_invents_nobody(lab: Lab, tmp_path: Path, held: ExitStack) -> None:
    """Only what was seen."""
    node = audited(lab, tmp_path)
    for source in RACK:
        dialled(node, held, source)
    assert ["10.7.0.4/31", "10.7.0.6/32"] == proposed(learned(node, "--now", "--exact"))


def test_a_client_of_the_api_is_never_let_in_with_its_neighbours(
    lab: Lab, tmp_path: Path, held: ExitStack
) -> None:
    """10.7.0.7 would be in the /30 of the other three."""
    node = audited(lab, tmp_path)
    lab.stranger.add_address("10.7.0.7")
    for source in RACK:
        dialled(node, held, source)
    dialled(node, held, "10.7.0.7", 8000)
    assert ["10.7.0.4/31", "10.7.0.6/32"] == proposed(learned(node, "--now"))


def test_who_came_and_went_is_known_from_what_audit_mode_counts(lab: Lab, tmp_path: Path) -> None:
    """A private address that only tried is proposed and said to be so; a public one is not."""
    node = audited(lab, tmp_path)
    for source in (FAR, lab.stranger.ipv4):
        made = lab.stranger.dial(lab.node.ipv4, PORT, source=source)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        made.close()  # by a reset: nobody has accepted it, so nobody else ends it
    eventually(lambda: not node.ask("connections")["clients"], "they are gone")
    answer = learned(node, "--now")
    told = {one.address: one for one in answer.sources}
    assert [f"{FAR}/32"] == proposed(answer)
    for source, decision in ((FAR, "proposed"), (lab.stranger.ipv4, "left out")):
        assert decision == told[source].decision
        assert "no connection was seen" in told[source].why
        assert told[source].packets >= 3


def test_public_addresses_are_never_joined_and_always_named(
    lab: Lab, tmp_path: Path, held: ExitStack
) -> None:
    """Who has the address beside one is anybody's guess."""
    node = audited(lab, tmp_path)
    rented = [f"203.0.113.{last}" for last in (100, 101, 102)]
    lab.stranger.add_address(*rented)
    for source in rented:
        dialled(node, held, source)
    answer = learned(node, "--now")
    assert ["203.0.113.100/31", "203.0.113.102/32"] == proposed(answer)
    assert any("not private" in note and "203.0.113.102/32" in note for note in answer.notes)
    assert 2 == answer.text.count("# PUBLIC")


def test_it_watches_as_long_as_it_is_told(lab: Lab, tmp_path: Path, held: ExitStack) -> None:
    """Who connects while it watches is seen; Ctrl-C ends it early with what it has."""
    node = audited(lab, tmp_path)
    watching = subprocess.Popen(
        command(node, "learn", "--for", "6s", "--json"), stdout=subprocess.PIPE, text=True
    )
    held.callback(watching.kill)
    dialled(node, held, FAR)
    out, _ = watching.communicate(timeout=30)
    answer: Proposal = TypeAdapter(Proposal).validate_json(out)
    assert [f"{FAR}/32"] == proposed(answer)
    assert 6 <= answer.seconds < 9


def test_both_namespaces_are_learned_from(lab: Lab, tmp_path: Path, held: ExitStack) -> None:
    """One list of peers for all of the node."""
    other = lab.host("other", "192.0.2.50", "2001:db8::50")
    node = Guarded(lab, tmp_path, arguments=("--only-namespace", other.path))
    node.config.write_text('mode = "audit"\n')
    node.start()
    listen(node)
    lab.stranger.add_address(*PRIVATE)
    with other_rank(node, other):
        node.wait_for_rules(2)
        dialled(node, held, PRIVATE[0])
        held.enter_context(lab.stranger.dial("2001:db8::50", PORT, source=PRIVATE[1]))
        decode(LearnFacts, node.ask("learn"), Fit.WHOLE)
        assert [f"{PRIVATE[0]}/32", f"{PRIVATE[1]}/128"] == proposed(learned(node, "--now"))


def test_a_file_of_somebody_else_is_never_written_over(
    lab: Lab, tmp_path: Path, held: ExitStack
) -> None:
    """--write takes a new name, or a proposal of before, whose networks stay."""
    node = audited(lab, tmp_path)
    dialled(node, held, FAR)
    done = subprocess.run(
        command(node, "learn", "--now", "--write", str(node.config)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert 2 == done.returncode
    assert "was not written by learn" in done.stderr
    assert 'mode = "audit"\n' == node.config.read_text()
    place = str(tmp_path / "proposal.toml")
    run(node, "learn", "--now", "--write", place)
    dialled(node, held, PRIVATE[0])
    answer = learned(node, "--now", "--write", place)
    assert {f"{FAR}/32", f"{PRIVATE[0]}/32"} == set(proposed(answer))
    assert f"+++ {place}" in answer.diff
    assert f"--- {place}" in answer.diff
    assert answer.text == Path(place).read_text()
