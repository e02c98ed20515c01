"""The text of the table: golden files over the options, and what must hold for every wall."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given

from tests.support.strategies import walls
from vllmwall import __version__
from vllmwall.cidr import merged
from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.nftables import ruleset
from vllmwall.enforce.nftables.diff import changing
from vllmwall.enforce.nftables.readback import read_wall
from vllmwall.model import Mode, Proto, Wall, WallEntry

GOLDEN = Path(__file__).parent / "golden"


def wall(*entries: WallEntry, mode: Mode = Mode.ENFORCE, **networks: list[str]) -> Wall:
    """A wall with these networks; `peers` are empty unless given."""
    named = {"peers": [], **networks}
    merged_ones = {name: merged(map(ip_network, cidrs)) for name, cidrs in named.items()}
    return Wall(7, frozenset(entries), merged_ones, mode)


def entry(
    port: int,
    *audience: str,
    family: int = 4,
    at: str | None = None,
    proto: Proto = Proto.TCP,
    note: str = "",
) -> WallEntry:
    """One entry."""
    return WallEntry(family, proto, port, audience, ip_address(at) if at else None, note)


PEERS = ["10.0.0.0/24", "10.0.1.0/25", "192.0.2.7", "fd00:10::/64"]
TCPSTORE = [entry(29500, "peers", family=family, note="tcpstore job-1") for family in (4, 6)]
WALLS = {
    "empty": wall(),
    "empty-audit": wall(mode=Mode.AUDIT),
    "peers": wall(*TCPSTORE, peers=PEERS),
    "peers-audit": wall(*TCPSTORE, mode=Mode.AUDIT, peers=PEERS),
    "every-audience": wall(
        entry(8000, "public", note="api job-1"),
        entry(29500, "peers"),
        entry(5000, "node"),
        entry(9090, "monitoring"),
        entry(9091, "monitoring", "peers"),
        entry(9092, "node", "peers"),
        peers=PEERS,
        monitoring=["198.51.100.20", "2001:db8:50::20"],
    ),
    "every-bind": wall(
        entry(29500, "peers"),
        entry(29501, "peers", family=6),
        entry(29502, "peers", at="192.0.2.1"),
        entry(29503, "peers", at="2001:db8::1", family=6),
        entry(29500, "peers", proto=Proto.UDP),
        entry(29503, "peers", at="2001:db8::1", family=6, proto=Proto.UDP),
        peers=PEERS,
    ),
    "nat-and-vrf": replace(
        wall(*TCPSTORE, peers=PEERS), redirected=True, vrfs=frozenset({"mgmt", "blue"})
    ),
}


def _matches(name: str, text: str) -> bool:
    """Compare with the golden file; UPDATE_GOLDEN=1 writes it instead."""
    path = GOLDEN / f"{name}.nft"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    return path.read_text() == text


@pytest.mark.parametrize("name", WALLS)
def test_the_table_is_as_in_the_golden_file(name: str) -> None:
    """A change of the ruleset is seen in review, as text."""
    assert _matches(name, ruleset.table(WALLS[name]).listing().replace(__version__, "VERSION"))


CHANGES = {
    "change-nothing": ("peers", "peers"),
    "change-grow": ("peers", "every-audience"),
    "change-shrink": ("every-audience", "peers"),
    "change-from-empty": ("empty", "every-bind"),
    "change-to-empty": ("every-bind", "empty"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_as_in_the_golden_file(name: str) -> None:
    """A change names what comes and goes and nothing else."""
    before, after = CHANGES[name]
    assert _matches(name, changing(WALLS[before], WALLS[after]))


def test_no_change_is_no_script() -> None:
    """Nothing is sent to the kernel when nothing is to do."""
    assert changing(WALLS["peers"], WALLS["peers"]) == ""


def test_a_new_note_does_not_open_the_port() -> None:
    """What closes the port is not touched while only its audience or note changes."""
    before = wall(entry(29500, "peers", note="unknown job-1"))
    for after in (wall(entry(29500, "peers", note="gloo job-1")), wall(entry(29500, "node"))):
        assert "walled_" not in changing(before, after)


def _rules(text: str) -> list[str]:
    chains = re.findall(r"^\tchain \S+ \{\n(.*?)^\t\}", text, re.MULTILINE | re.DOTALL)
    return [line for chain in chains for line in chain.splitlines()]


def test_the_number_of_rules_does_not_depend_on_ports_or_peers() -> None:
    """A thousand ports and peers make no rule more than one of each."""
    many = wall(
        *(entry(port, "peers") for port in range(1000, 2000)),
        peers=[f"10.{n // 256}.{n % 256}.0/28" for n in range(1000)],
    )
    one = wall(entry(1000, "peers"), peers=["10.0.0.0/28"])
    assert _rules(ruleset.table(many).listing()) == _rules(ruleset.table(one).listing())


@given(walls())
def test_what_is_written_reads_back(any_wall: Wall) -> None:
    """Writer and reader agree on every wall."""
    assert read_wall(ruleset.table(any_wall).listing(), any_wall.namespace) == any_wall


@given(walls())
def test_nothing_a_user_names_starts_a_command(any_wall: Wall) -> None:
    """Whatever groups and notes are called, only lines that we wrote begin a command."""
    lines = ruleset.replacing(ruleset.table(any_wall)).splitlines()
    outside = [line for line in lines if line and not line.startswith("\t")]
    table = "table inet vllmwall {"
    words = ["add table inet vllmwall", "delete table inet vllmwall", table, "}"]
    assert outside == words


def test_networks_that_overlap_are_merged() -> None:
    """nft refuses overlapping intervals: it never gets any."""
    peers = (ip_network("10.0.0.0/24"), ip_network("10.0.0.0/28"), ip_network("10.0.1.0/24"))
    text = ruleset.table(Wall(7, frozenset(), {"peers": peers})).listing()
    assert "elements = { 10.0.0.0/23 }" in text


LONG_NAMES = tuple(f"{'x' * 30}{letter}" for letter in "abcdefgh")


def grouped(*names: str) -> Wall:
    """A wall with these groups and an entry for all of them together."""
    nothing = dict.fromkeys(("peers", *names), ())
    return Wall(7, frozenset([entry(1, *names)]), nothing)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (wall(entry(1, "peers", note='"')), "note"),
        (wall(entry(1, "peers", note="a\nb")), "note"),
        (wall(entry(1, "nobody")), "no networks"),
        (wall(entry(1, "peers", "public")), "cannot be combined"),
        (wall(entry(1, "public", "peers")), "not sorted"),
        (wall(entry(1)), "empty"),
        (wall(entry(0, "peers")), "family or port"),
        (wall(entry(65536, "peers")), "family or port"),
        (wall(entry(1, "peers", family=5)), "family or port"),
        (wall(entry(1, "peers", at="::1")), "differ"),
        (wall(entry(1, "peers", proto=Proto.UNIX)), "neither tcp nor udp"),
        (wall(entry(1, "peers"), entry(1, "node")), "two entries"),
        (grouped("a.b"), "cannot name"),
        (grouped("node"), "cannot name"),
        (grouped(*LONG_NAMES), "too many groups"),
    ],
)
def test_a_wall_that_contradicts_itself_is_refused(bad: Wall, words: str) -> None:
    """The reason is said, and nothing is sent."""
    with pytest.raises(EnforceError, match=words):
        ruleset.table(bad)
    with pytest.raises(EnforceError, match=words):
        changing(wall(), bad)
