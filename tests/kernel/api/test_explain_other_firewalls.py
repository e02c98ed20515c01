"""What `explain` says beside other firewalls is what a connection finds, or that it is unknown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.guarded import Guarded, guarded
from tests.support.lab import NODE, PEER, STRANGER, Lab
from tests.support.waiting import eventually

IPTABLES_REJECT = """
{0} -A INPUT -m state --state RELATED,ESTABLISHED -j ACCEPT
{0} -A INPUT -i lo -j ACCEPT
{0} -A INPUT -p tcp --dport 22 -j ACCEPT
{0} -A INPUT -p tcp -j REJECT {1}
"""
CHAIN = """nft -f - <<'E'
table {family} site {{
    set open {{
        type inet_service
        elements = {{ 22, 7000 }}
    }}
    map by {{
        type inet_service : verdict
        elements = {{ 8000 : drop, 22 : accept }}
    }}
    set hosts {{
        type ipv4_addr
        flags interval
        elements = {{ 192.0.2.0/24 }}
    }}
    chain web {{
        {web}
    }}
    chain c {{
        type {kind} hook {hook}; policy {policy};
        {rules}
    }}
}}
E
"""
CLEAN = """
nft list tables | grep -v 'inet vllmwall' | while read each; do nft delete $each; done
"""
INPUT = "input priority 0"
NAT = "prerouting priority -100"


def chain(rules: str, hook: str = INPUT, policy: str = "accept", **more: str) -> str:
    """A command that makes a base chain of another program. ``rules`` are separated by ``;``."""
    words = {"family": "inet", "web": "return", "kind": "nat" if hook == NAT else "filter", **more}
    lines = rules.replace("; ", "\n        ")
    return CHAIN.format(rules=lines, hook=hook, policy=policy, **words)


@dataclass(frozen=True)
class Case:
    """Rules, and the verdict on the API for a stranger and for a peer. `unknown`: the rules use
    something that vllmwall cannot evaluate, or NAT."""

    rules: str
    stranger: str
    peer: str = ""


RAW_TRACE = 'meta nftrace set 1; meta mark set 0x10; log prefix "x" level debug; counter;'
CLOSING = {
    "iptables, a last REJECT": Case(
        IPTABLES_REJECT.format("iptables", "--reject-with icmp-host-prohibited"), "closed"
    ),
    "nft, a last drop": Case(chain("tcp dport 22 accept; iif lo accept; drop"), "closed"),
    "nft, a last reject": Case(chain("reject with icmpx port-unreachable"), "closed"),
    "policy drop": Case(chain("ct state established,related accept", policy="drop"), "closed"),
    "policy drop, the port is open": Case(
        chain("tcp dport { 22, 8000 } accept", policy="drop"), "open"
    ),
    "a verdict map by state": Case(
        chain("ct state vmap { established : accept, invalid : drop, new : jump web }", web="drop"),
        "closed",
    ),
    "a named verdict map": Case(chain("tcp dport vmap @by"), "closed"),
    "not in a set": Case(chain("tcp dport != @open drop"), "closed"),
    "by source": Case(chain("ip saddr @hosts accept; ip version 4 drop"), "closed", "open"),
    "in a chain of its own": Case(
        chain("tcp dport 8000 jump web", web="tcp flags syn drop"), "closed"
    ),
    "back from a chain": Case(chain("jump web; tcp dport 8000 drop", web="return"), "closed"),
    "raw prerouting": Case(chain("tcp dport 8000 drop", "prerouting priority -300"), "closed"),
    "inet ingress": Case(chain("tcp dport 8000 drop", "ingress device eth0 priority 0"), "closed"),
    "netdev ingress": Case(
        chain("tcp dport 8000 drop", "ingress device eth0 priority 0", family="netdev"), "closed"
    ),
    "after what changes nothing": Case(chain(f"{RAW_TRACE}tcp dport 8000 drop"), "closed"),
    "a mark that nobody sets": Case(chain("meta mark & 0x8000 == 0x8000 drop"), "open"),
    "a mark that a rule sets": Case(
        chain("meta mark set 0x8000; meta mark 0x8000 drop"), "unknown"
    ),
    "another device": Case(chain('iifname "docker0" drop'), "unknown"),
    "what is not understood": Case(chain("tcp option maxseg size < 100 drop"), "unknown"),
    "the same without consequence": Case(chain("tcp option maxseg size < 100 accept"), "open"),
    "the same behind what does not match": Case(
        chain("tcp dport 9 tcp option maxseg size < 100 drop"), "open"
    ),
    "a limit": Case(chain("limit rate 10/second accept; drop"), "unknown"),
}


@pytest.fixture(scope="module")
def node(shared_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server's API at 8000 and a rank's store at 29500."""
    with guarded(shared_lab, tmp_path_factory.mktemp("others") / "node") as found:
        found.server(8000).open("tcp", "::", 8000)
        found.rank().open("tcp", "::", 29500)
        found.wait_for_rules(2)
        yield found


@pytest.fixture
def site(node: Guarded) -> Iterator[Guarded]:
    """The node, from which other programs' rules are removed afterwards."""
    yield node
    node.lab.node.run(["sh", "-c", CLEAN])


def verdict(node: Guarded, source: str, port: int, to: str = NODE[0]) -> tuple[str, str]:
    """The verdict of `vllmwall explain`, and why."""
    words = [sys.executable, "-m", "vllmwall", "--socket", str(node.runtime / "control.sock")]
    words += ["explain", source, str(port), "--to", to, "--proto", "tcp", "--json"]
    words += ["--config", str(node.config), "--only-namespace", node.lab.node.path]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ)
    assert done.stdout, done.stderr
    [answer] = json.loads(done.stdout)["answers"]
    return answer["verdict"], answer["reason"]


def found_by_packets(node: Guarded, who: str, port: int, family: int = 0) -> str:
    """Open or closed by a real connection."""
    host = node.lab.peer if who == "peer" else node.lab.stranger
    try:
        return "open" if host.connect(NODE[family], port) == "open" else "closed"
    except OSError:  # what a reject says can be one of many errors
        return "closed"


@pytest.mark.parametrize("name", CLOSING)
def test_rules_of_other_firewalls_are_evaluated(site: Guarded, name: str) -> None:
    """The policy of their chains is not enough: most rule sets have policy accept."""
    case = CLOSING[name]
    site.lab.node.run(["sh", "-ec", case.rules])
    for who, source, expected in (
        ("stranger", STRANGER[0], case.stranger),
        ("peer", PEER[0], case.peer or case.stranger),
    ):
        said, why = verdict(site, source, 8000)
        assert expected == said, why
        if said != "unknown":
            assert found_by_packets(site, who, 8000) == said


def test_families_are_told_apart(site: Guarded) -> None:
    """ip6tables closes IPv6 only."""
    site.lab.node.run(["sh", "-ec", IPTABLES_REJECT.format("ip6tables", "--reject-with tcp-reset")])
    for family, expected in ((0, "open"), (1, "closed")):
        assert expected == verdict(site, STRANGER[family], 8000, NODE[family])[0]
        assert expected == found_by_packets(site, "stranger", 8000, family)


def test_the_rule_is_named(site: Guarded) -> None:
    """Its table, chain and text, for who has to change it."""
    site.lab.node.run(["sh", "-ec", chain("tcp dport 22 accept; drop")])
    assert ("closed", "another firewall closes it: inet site c: drop") == verdict(
        site, STRANGER[0], 8000
    )


_REDIRECT = "-t nat -A PREROUTING -p tcp --dport"
TAKEN = {
    "iptables REDIRECT": (
        "iptables -t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 8000",
        "port 8000 of this host",
    ),
    "nft redirect": (
        chain("tcp dport 80 redirect to :8000", NAT),
        "port 8000 of this host",
    ),
    "iptables DNAT to itself": (
        f"iptables -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination {NODE[0]}:8000",
        f"{NODE[0]}:8000",
    ),
    "a map": (
        chain("meta l4proto tcp redirect to :tcp dport map { 80 : 8000 }", NAT),
        "does not understand a rule of another firewall: inet site c: ",
    ),
    "not understood": (
        chain("tcp dport 80 tcp option maxseg size > 10 redirect to :8000", NAT),
        "does not understand a rule of another firewall: inet site c: tcp dport 80",
    ),
    "a mesh": (
        "iptables -t nat -A PREROUTING -p tcp -j REDIRECT --to-ports 8000",
        "port 8000 of this host",
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_port_that_nat_takes_is_never_called_closed(site: Guarded, name: str) -> None:
    """Nobody listens at 80, and yet a stranger is answered there."""
    rules, words = TAKEN[name]
    assert "closed" == verdict(site, STRANGER[0], 80)[0]
    site.lab.node.run(["sh", "-ec", rules])
    said, why = verdict(site, STRANGER[0], 80)
    assert "open" == found_by_packets(site, "stranger", 80)
    assert "unknown" == said
    assert words in why
    if name not in ("a mesh", "a map", "not understood"):
        assert "closed" == verdict(site, STRANGER[0], 79)[0]


@pytest.mark.parametrize(
    ("family", "rules"),
    [
        (0, chain("tcp dport 29500 redirect to :8000", NAT)),
        (1, chain("tcp dport 29500 redirect to :8000", NAT)),
        (0, f"iptables {_REDIRECT} 29500 -j REDIRECT --to-ports 8000"),
        (1, f"ip6tables {_REDIRECT} 29500 -j REDIRECT --to-ports 8000"),
    ],
)
def test_a_redirected_port_is_closed_by_its_first_number(
    site: Guarded, family: int, rules: str
) -> None:
    """29500 leads to the API. The wall lets peers through it; where that ends is another answer."""
    site.lab.node.run(["sh", "-ec", rules])
    eventually(
        lambda: found_by_packets(site, "stranger", 29500, family) == "closed", "the daemon follows"
    )
    said, why = verdict(site, STRANGER[family], 29500, NODE[family])
    assert "closed" == said
    assert "the wall refuses it by this port, wherever NAT sends it" in why
    assert "open" == found_by_packets(site, "peer", 29500, family)
    assert "unknown" == verdict(site, PEER[family], 29500, NODE[family])[0]


def test_a_target_that_nft_does_not_print_is_not_taken_for_none(site: Guarded) -> None:
    """nft 1.0.6 leaves out that of ip6tables where iptables has the same."""
    each = f"tables {_REDIRECT} 80 -j REDIRECT --to-ports 8000"
    site.lab.node.run(["sh", "-ec", f"ip{each}\nip6{each}"])
    assert "open" == found_by_packets(site, "stranger", 80, 1)
    assert "unknown" == verdict(site, STRANGER[1], 80, NODE[1])[0]


@pytest.mark.parametrize("to", [f"{PEER[0]}:9", f"{PEER[0]}-192.0.2.4"])
def test_what_nat_forwards_is_not_closed_by_its_first_number(site: Guarded, to: str) -> None:
    """It never comes to the wall of this host."""
    site.lab.node.run(["sh", "-ec", chain(f"tcp dport 29500 dnat ip to {to}", NAT)])
    shown = ["nft", "list", "table", "inet", "vllmwall"]
    eventually(lambda: "redirected" in site.lab.node.run(shown).stdout, "the daemon follows")
    assert "unknown" == verdict(site, STRANGER[0], 29500)[0]


def test_rules_that_cannot_be_read_are_not_taken_for_none(site: Guarded) -> None:
    """A chain of NAT that nobody evaluated can lead to any port."""
    site.lab.node.run(["sh", "-ec", TAKEN["nft redirect"][0]])
    folder = site.folder / "no-nft"
    folder.mkdir()
    (folder / "nft").write_text("#!/bin/sh\nkill -SEGV $$\n")
    (folder / "nft").chmod(0o755)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}:{path}"
    try:
        said, why = verdict(site, STRANGER[0], 80)
    finally:
        os.environ["PATH"] = path
    assert "unknown" == said
    assert "the rules of other firewalls cannot be read: nft ended with -11" in why
