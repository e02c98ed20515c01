"""Rules of other programs: what is not understood never becomes a verdict."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from vllmwall.enforce.evaluator.foreign import Fate, read_ruleset
from vllmwall.enforce.evaluator.foreign_rules import Arrival

PACKET = Arrival(
    ip_address("203.0.113.9"), ip_address("192.0.2.1"), "tcp", 8000, 40000, interface=""
)


def fate(*rules: str, hook: str = "input", kind: str = "filter", packet: Arrival = PACKET) -> Fate:
    """The fate in one base chain with these rules."""
    lines = "".join(f"\t\t{rule}\n" for rule in rules)
    head = f"\t\ttype {kind} hook {hook} priority filter; policy accept;\n"
    text = f"table inet site {{\n\tchain c {{\n{head}{lines}\t}}\n"
    text += "\tchain d {\n\t\tdrop\n\t}\n\tchain e {\n\t\treturn\n\t}\n}\n"
    return read_ruleset(text).fate(packet)


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        ("xt match \"recent\" counter drop", "unknown"),
        ("xt match \"recent\" counter accept", "accept"),
        ("xt match \"recent\" counter", "accept"),
        ("xt target \"TPROXY\"", "unknown"),
        ("queue to 3", "unknown"),
        ("tproxy to :50080", "unknown"),
        ("tcp dport vmap @missing", "unknown"),
        ("tcp dport @missing drop", "unknown"),
        ("jump missing", "unknown"),
        ("something new jump d", "unknown"),
        ("something new goto d", "unknown"),
        ("tcp dport 9 something new drop", "accept"),
        ("tcp dport 8000 something new drop", "unknown"),
        ("udp dport 8000 drop", "accept"),
        ("meta mark 0x1 drop", "accept"),
        ("iifname \"lo\" drop", "accept"),
        ("iifname != \"lo\" drop", "drop"),
        ("iifname \"eth1\" drop", "unknown"),
        ("iifname { \"lo\", \"eth1\" } drop", "unknown"),
        ("ct state { new } reject with icmpx admin-prohibited", "reject"),
        ("ct status dnat accept", "accept"),
        ("meta pkttype broadcast drop", "accept"),
        ("icmp type echo-request drop", "accept"),
        ("fib saddr . iif oif missing drop", "accept"),
        ("tcp flags & (fin | syn | rst | ack) == syn drop", "drop"),
    ],
)  # fmt: skip
def test_a_rule_decides_only_when_it_is_understood(rule: str, verdict: str) -> None:
    """Undecided is what both ways of a rule do not agree on."""
    assert verdict == fate(rule).verdict


@pytest.mark.parametrize(
    "rule", [f"tcp flags & (fin | syn | rst | ack) {way} syn drop" for way in ("==", "!=")]
)
@pytest.mark.parametrize(
    "packet", [replace(PACKET, proto="udp"), replace(PACKET, dport=None, sport=None)]
)
def test_a_packet_without_flags_meets_no_rule_about_them(rule: str, packet: Arrival) -> None:
    """UDP, and the later fragments of TCP."""
    assert "accept" == fate(rule, packet=packet).verdict


def test_a_rule_that_is_not_understood_matters_only_where_it_decides() -> None:
    """Both ways can end in the same."""
    assert "drop" == fate("something new drop", "drop").verdict
    assert ("unknown", "something new accept") == (
        (found := fate("something new accept", "drop")).verdict,
        found.rule,
    )


def test_a_mark_is_known_until_a_rule_may_have_set_it() -> None:
    """Also by a rule that is not understood."""
    assert "accept" == fate("meta mark 0x1 drop").verdict
    assert "unknown" == fate("something new meta mark set 0x1", "meta mark 0x1 drop").verdict
    assert "accept" == fate("tcp dport 9 meta mark set 0x1", "meta mark 0x1 drop").verdict


def test_untracked_packets_meet_no_nat() -> None:
    """And their state is no longer new."""
    head = "table ip {0} {{\n\tchain p {{\n\t\ttype {1} hook prerouting priority {2};\n"
    raw, nat = head.format("raw", "filter", "raw"), head.format("nat", "nat", "dstnat")
    text = f"{raw}\t\tnotrack\n\t}}\n}}\n{nat}\t\tredirect to :1\n\t}}\n}}\n"
    assert "accept" == read_ruleset(text).fate(PACKET).verdict
    assert "forwarded" == read_ruleset(text.replace("notrack", "counter")).fate(PACKET).verdict


def test_a_thousand_undecided_jumps_end() -> None:
    """Each doubles the ways; the bound makes them unknown and not endless."""
    jumps = [f"\t\tsomething new jump c{n}\n" * 2 for n in range(1, 16)]
    chains = "".join(f"\tchain c{n} {{\n{rules}\t}}\n" for n, rules in enumerate(jumps))
    head = "\tchain b {\n\t\ttype filter hook input priority filter; policy accept;\n\t\tjump c0\n"
    text = f"table inet x {{\n{head}\t}}\n{chains}\tchain c15 {{\n\t\tdrop\n\t}}\n}}\n"
    assert "unknown" == read_ruleset(text).fate(PACKET).verdict


def test_many_undecided_rules_are_no_deep_recursion() -> None:
    """A rule set of a site can have thousands."""
    assert "accept" == fate(*["something new accept"] * 3000).verdict
    assert "unknown" == fate(*["something new jump d"] * 3000).verdict
    assert "unknown" == fate(*["something new accept"] * 3000, "drop").verdict
    assert "drop" == fate(*["jump e"] * 3000, "drop").verdict


def test_our_own_tables_are_left_out() -> None:
    """They are evaluated as what they are."""
    head = "\tchain input {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n"
    for name, expected in (("vllmwall", 0), ("vllmwall_standin", 0), ("other", 1)):
        assert expected == len(read_ruleset(f"table inet {name} {{\n{head}}}\n").bases)


@pytest.mark.parametrize("text", ["", "table", "table inet x {", "\0", "table inet x {\n}\n" * 3])
def test_any_text_is_read(text: str) -> None:
    """What is no listing has no chains."""
    assert () == read_ruleset(text).bases
