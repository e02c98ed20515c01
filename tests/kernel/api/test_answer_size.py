"""What each command prints for machines has the shape that is published for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from pydantic import TypeAdapter

from tests.support.guarded import Guarded, eventually, guarded
from tests.support.lab import Lab
from tests.support.scripts import packaging

SHAPES = packaging("cli_docs").SHAPES


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A node with something to say: a rank, an API, somebody refused, a peer connected."""
    with Lab() as lab, guarded(lab, tmp_path_factory.mktemp("node")) as found:
        found.rank().open("tcp", "::", 29500)
        found.server(8000).open("tcp", "0.0.0.0", 8000)
        eventually(lambda: lab.stranger.connect(lab.node.ipv4, 29500) == "timeout", "walled")
        found.settled()
        with lab.peer.dial(lab.node.ipv4, 29500):
            yield found


COMMANDS = {
    "audit": ["audit", "--config", "{config}", "--only-namespace", "{namespace}"],
    "bans": ["bans"],
    "blocked": ["blocked"],
    "check": ["check", "{config}"],
    "connections": ["connections"],
    "doctor": ["doctor", "--config", "{config}"],
    "explain": ["explain", "stranger", "29500"],
    "learn": ["learn", "--now"],
    "peers": ["peers", "list"],
    "plan": ["plan", "--config", "{config}"],
    "prove": ["prove"],
    "status": ["status"],
}
CHANGES = {
    "status": ["reload"],
    "peers": ["peers", "add", "192.0.2.50"],
    "bans": ["ban", "203.0.113.77"],
    "down": ["down", "--only-namespace", "{namespace}"],
}


def printed(node: Guarded, words: list[str]) -> str:
    words = [
        one.format(config=node.config, namespace=node.lab.node.path) for one in [*words, "--json"]
    ]
    command = [sys.executable, "-m", "vllmwall", "--socket", str(node.runtime / "control.sock")]
    done = subprocess.run(
        node.lab.node.command([*command, *words]), capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    return done.stdout


@pytest.mark.parametrize("shape", COMMANDS)
def test_a_question_is_answered_in_its_shape(node: Guarded, shape: str) -> None:
    """Nothing more, nothing less; strictly, so that a number is no text."""
    text = printed(node, COMMANDS[shape])
    TypeAdapter(SHAPES[shape]).validate_json(text, strict=True)


@pytest.mark.parametrize("shape", CHANGES)
def test_a_change_is_answered_in_its_shape(node: Guarded, shape: str) -> None:
    """The same for what changes something; after the questions, because it does."""
    text = printed(node, CHANGES[shape])
    TypeAdapter(SHAPES[shape]).validate_json(text, strict=True)
