"""Reading a table: what is ours, what is not, and what was refused."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network

import pytest

from vllmwall.enforce.backend import AlteredWall
from vllmwall.enforce.nftables import ruleset
from vllmwall.enforce.nftables.readback import read_wall
from vllmwall.model import Mode, Proto, Wall, WallEntry

ENTRIES = frozenset(
    {
        WallEntry(4, Proto.TCP, 29500, ("peers",), None, "gloo job-1"),
        WallEntry(6, Proto.UDP, 5000, ("public",), ip_address("2001:db8::1")),
    }
)
WALL = Wall(7, ENTRIES, {"peers": (ip_network("10.0.0.0/24"), ip_network("10.0.1.0/25"))})
TEXT = ruleset.table(WALL).listing()


def _altered(old: str, new: str) -> AlteredWall:
    assert old in TEXT
    found = read_wall(TEXT.replace(old, new, 1), 7)
    assert isinstance(found, AlteredWall)
    assert found != WALL
    return found


def test_neighbours_that_nft_joins_are_the_networks_they_were() -> None:
    """nft lists touching networks as a range; that is no change."""
    joined = "10.0.0.0-10.0.1.127"
    cidrs = "10.0.0.0/24,\n\t\t\t     10.0.1.0/25"
    assert read_wall(TEXT.replace(cidrs, joined), 7) == WALL


@pytest.mark.parametrize("flags", ["owner", "persist", "owner, persist", "owner,persist"])
def test_with_any_owner_the_table_is_our_wall(flags: str) -> None:
    """The flags that protect the table do not change what it does."""
    owned = TEXT.replace("{\n", f"{{ # progname vllmwall\n\tflags {flags}\n", 1)
    assert read_wall(owned, 7) == WALL


def test_what_a_set_holds_just_now_is_no_change() -> None:
    """Newer versions of nft tell it behind the size of one that packets fill."""
    counted = re.sub(r"(size \d+)", r"\1\t# count 3", TEXT)
    assert counted != TEXT
    assert read_wall(counted, 7) == WALL


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{\n\tcomment", "{\n\tflags dormant\n\tcomment", "table: "),
        ("enforce", "audit", "table: "),
        ("counter drop", "counter accept", "table: "),
        ("counter drop", "drop", "chain strangers: "),
        ("policy accept", "policy drop", "chain input: "),
        ('\t\tiif "lo" accept\n', "", "chain input: "),
        ("\tchain only_peers {", "\tchain only_friends {", "chain only_friends: not ours"),
        ("\tset refused6 {", "\tset refused7 {", "set refused6: missing"),
        ("size 4096", "size 4", "set refused4: "),
        ("jump only_peers", "jump x", "map any4: tcp . 29500"),
        ("jump only_peers", "jump only_nobody", "no networks"),
        ("2001:db8::1 . udp", "2001:db8::g . udp", "map addr6: 2001:db8::g"),
        ("{ tcp . 29500 }", "{ tcp . 29501 }", "(None, <Proto.TCP: 'tcp'>, 29500) is missing"),
        ("{ tcp . 29500 }", "{ sctp . 1 }", "sctp . 1 is not ours"),
        ("{ tcp . 29500 }", "{ 1.2.3 . tcp . 1 }", "1.2.3 . tcp . 1 is not ours"),
        ("10.0.0.0/24", "10.0.0.0/x", "set peers4: 10.0.0.0/x"),
        ("10.0.0.0/24", "10.0.0.0-::1", "set peers4: 10.0.0.0-::1"),
    ],
)
def test_a_change_is_named(old: str, new: str, words: str) -> None:
    """Every kind of change is noticed, and said."""
    assert any(words in line for line in _altered(old, new).differences)


def test_an_ipv6_range_is_read() -> None:
    """Neighbouring IPv6 networks are joined in listings as well."""
    networks = (ip_network("fd00::/65"), ip_network("fd00:0:0:0:8000::/66"))
    text = ruleset.table(Wall(7, frozenset(), {"peers": networks})).listing()
    start = text.index("fd00::/65")
    end = text.index(" }", start)
    joined = text[:start] + "fd00::-fd00::bfff:ffff:ffff:ffff" + text[end:]
    assert read_wall(joined, 7) == Wall(7, frozenset(), {"peers": networks})


def test_the_mode_is_read_from_what_happens_to_strangers() -> None:
    """Not from the comment, which is for people."""
    assert _altered("counter drop", "counter accept").mode is Mode.AUDIT
