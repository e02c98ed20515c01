"""Rules of legacy iptables, as its own command translates them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from vllmwall.enforce.evaluator.foreign import read_ruleset
from vllmwall.enforce.evaluator.foreign_rules import Arrival
from vllmwall.observe.other_rules import _as_listing, _end

TRANSLATED = """# Translated by iptables-restore-translate v1.8.9 on Fri Nov 27 08:34:42 2026
add table ip filter
add chain ip filter INPUT { type filter hook input priority 0; policy accept; }
add chain ip filter SITE
add rule ip filter INPUT ct state related,established counter accept
add rule ip filter INPUT tcp dport 22 ct state new counter accept comment "x y"
add rule ip filter INPUT mark and 0x4000 == 0x4000 counter accept
add rule ip filter INPUT tcp dport 9 counter jump SITE
# -t filter -A SITE -m recent --set --name x -j DROP
add rule ip filter INPUT counter reject with icmp type host-prohibited
add table ip nat
add chain ip nat PREROUTING { type nat hook prerouting priority -100; policy accept; }
add rule ip nat PREROUTING tcp dport 80 counter redirect to :8000
# Completed on Fri Nov 27 08:34:42 2026
"""


@pytest.mark.parametrize(
    ("port", "verdict"), [(22, "accept"), (8000, "reject"), (80, "forwarded"), (9, "unknown")]
)
def test_translated_rules_are_evaluated(port: int, verdict: str) -> None:
    """One that the command cannot translate may do anything."""
    source, to = ip_address("203.0.113.9"), ip_address("192.0.2.1")
    packet = Arrival(source, to, "tcp", port, 40000, interface="")
    assert verdict == read_ruleset(_as_listing(TRANSLATED, "ip")).fate(packet).verdict


@pytest.mark.parametrize(
    ("to", "end"),
    [
        ("10.0.0.7:80", "10.0.0.7:80"),
        ("10.0.0.7", "10.0.0.7:8000"),
        ("[fd00::7]:80", "[fd00::7]:80"),
        ("fd00::7", "[fd00::7]:8000"),
        (":8000", ""),
        ("10.0.0.7-10.0.0.9", ""),
        ("10.0.0.7:80-90", ""),
        ("", ""),
    ],
)
def test_the_end_of_a_published_port(to: str, end: str) -> None:
    """One address and one port, or none."""
    assert end == _end(to, 8000)
